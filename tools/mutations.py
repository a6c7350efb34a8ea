"""Break the mathematics on purpose, one small change at a time: the named tests must notice each.

    python -m tools.mutations
    python -m tools.mutations --only posterior

Every mutant is a copy of the package in a temporary folder in which one piece of text, found exactly once, is replaced.
Its tests run in a fork of a process that has imported the libraries already. Exit code 1 when a mutant survives, or
when its text is no longer there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
SECONDS = 600  # a mutant that runs longer hangs: noticed

# name, file in diffusion_bert/, text, replacement, tests
MUTANTS = [
    (
        "schedule: sign of the warp",
        "diffusion/schedule.py",
        "return u, self.word_freq_lambda * self.informativeness[ids]",
        "return u, -self.word_freq_lambda * self.informativeness[ids]",
        "diffusion/schedule diffusion/process",
    ),
    (
        "schedule: cosine without its square",
        "diffusion/schedule.py",
        "torch.sin(tau * (math.pi / 2)) ** 2",
        "torch.sin(tau * (math.pi / 2))",
        "diffusion/schedule",
    ),
    (
        "schedule: upper end not set by hand",
        "diffusion/schedule.py",
        "torch.where(u >= 1, 1.0, torch.where(u <= 0, 0.0, m.clamp(0.0, 1.0)))",
        "torch.where(u <= 0, 0.0, m.clamp(0.0, 1.0 - 1e-9))",
        "diffusion/schedule",
    ),
    (
        "schedule: reveal divided by the wrong m",
        "diffusion/schedule.py",
        "return (m_t - m_s) / m_t",
        "return (m_t - m_s) / (1 - m_s)",
        "diffusion/schedule diffusion/process",
    ),
    (
        "schedule: slope of the warp",
        "diffusion/schedule.py",
        "2 * math.pi * warp * torch.sin",
        "math.pi * warp * torch.sin",
        "diffusion/schedule",
    ),
    (
        "schedule: mean of m forgets the warp",
        "diffusion/schedule.py",
        "torch.full_like(u, -self.word_freq_lambda)",
        "torch.full_like(u, 0.0)",
        "model/functions",
    ),
    (
        "words: frequent is informative",
        "diffusion/word_frequency.py",
        "gap = (counts * f).sum() / total - f",
        "gap = f - (counts * f).sum() / total",
        "diffusion/word_frequency",
    ),
    (
        "words: mean over types instead of running words",
        "diffusion/word_frequency.py",
        "(counts * f).sum() / total - f",
        "f[ordinary].mean() - f",
        "diffusion/word_frequency",
    ),
    (
        "words: special ids take part",
        "diffusion/word_frequency.py",
        "counts[~ordinary] = 0",
        "counts[~ordinary] += 0",
        "diffusion/word_frequency",
    ),
    (
        "noise: sources are noised",
        "diffusion/process.py",
        "torch.where(maskable & (uniform < m)",
        "torch.where((uniform < m)",
        "diffusion/process",
    ),
    (
        "noise: wrong side of the coin",
        "diffusion/process.py",
        "(uniform < m), self.mask_id",
        "(uniform > m), self.mask_id",
        "diffusion/process",
    ),
    (
        "posterior: mask keeps r",
        "diffusion/process.py",
        "table[..., self.mask_id] += torch.where(masked, 1 - r, 0.0)",
        "table[..., self.mask_id] += torch.where(masked, r, 0.0)",
        "diffusion/process",
    ),
    (
        "reverse: mask takes everything",
        "diffusion/process.py",
        "table[..., self.mask_id] = 1 - revealed.sum(-1)",
        "table[..., self.mask_id] = 1.0",
        "diffusion/process",
    ),
    (
        "kl: no second term",
        "diffusion/process.py",
        "return KlTerms(reveal_term, torch.where(last, 0.0, 1 - r_x) * stay)",
        "return KlTerms(reveal_term, torch.zeros_like(reveal_term))",
        "diffusion/process training/objective",
    ),
    (
        "kl: second term turned round",
        "diffusion/process.py",
        "stay = torch.log1p(-torch.where(last, 0.0, r_x)) - torch.log1p(-torch.where(last, 0.0, expected_r))",
        "stay = torch.log1p(-torch.where(last, 0.0, expected_r)) - torch.log1p(-torch.where(last, 0.0, r_x))",
        "diffusion/process",
    ),
    (
        "kl: corrected without its normaliser",
        "diffusion/process.py",
        "log_mu_x = log_mu_x + m_t.log() - mean_t.log()",
        "log_mu_x = log_mu_x + m_t.log()",
        "diffusion/process training/objective",
    ),
    (
        "times: never the last step",
        "diffusion/times.py",
        "return 1 + (num_steps * spread).long()",
        "return 0 + (num_steps * spread).long()",
        "training/objective",
    ),
    (
        "times: all examples at one",
        "diffusion/times.py",
        "torch.arange(batch_size, dtype=torch.float64) / batch_size",
        "torch.zeros(batch_size)",
        "training/objective",
    ),
    (
        "nelbo: not times T",
        "training/objective.py",
        "reveal=num_steps * kl.reveal.sum()",
        "reveal=kl.reveal.sum()",
        "training/objective",
    ),
    (
        "nelbo: length off by one",
        "training/objective.py",
        "batch.target_length - 1, reduction",
        "batch.target_length % 2, reduction",
        "training/objective",
    ),
    (
        "loss: hybrid forgotten",
        "training/objective.py",
        "+ hybrid_lambda * cross_entropy + length",
        "+ length",
        "training/objective",
    ),
    (
        "ancestral: one rate for all words",
        "samplers/ancestral.py",
        "tau_t[rows], words)",
        "tau_t[rows], torch.zeros_like(words))",
        "samplers/samplers",
    ),
    (
        "ancestral: candidates taken without the second coin",
        "samplers/ancestral.py",
        "< r / r_max[rows], last",
        "< r.clamp(min=1.0), last",
        "samplers/samplers",
    ),
    (
        "ancestral: reveals too rarely",
        "samplers/ancestral.py",
        "< r / r_max[rows], last",
        "< r, last",
        "samplers/samplers",
    ),
    (
        "confidence: least confident first",
        "samplers/confidence.py",
        "rank_within_rows(confidence_of(places, words, options), places.rows)",
        "rank_within_rows(-confidence_of(places, words, options), places.rows)",
        "samplers/samplers",
    ),
    (
        "confidence: rounds away whole numbers",
        "samplers/confidence.py",
        "schedule.u(tau) + 1e-9",
        "schedule.u(tau) - 1e-9",
        "samplers/samplers",
    ),
    (
        "first hitting: time of n places",
        "samplers/first_hitting.py",
        "(1 - uniform) ** (1 / n)",
        "(1 - uniform) ** (1.0 * n)",
        "samplers/laws",
    ),
    (
        "first hitting: all candidates kept",
        "samplers/first_hitting.py",
        "state.uniform(places) < kept",
        "state.uniform(places) < 1 + kept",
        "samplers/laws",
    ),
    (
        "entropy: the bound counts the word itself",
        "samplers/entropy.py",
        "before = table.cumsum(-1) - table",
        "before = table.cumsum(-1)",
        "samplers/laws",
    ),
    ("remask: no cap", "samplers/remask.py", "clamp(max=cap)", "clamp(max=1.0)", "samplers/laws"),
    ("remask: nothing revealed in exchange", "samplers/remask.py", "* (1 - m_t) / m_t", "* 0", "samplers/laws"),
    (
        "guidance: turned round",
        "samplers/words.py",
        "log_mu + scale * push",
        "log_mu - scale * push",
        "generation/denoise",
    ),
    (
        "words: temperature upside down",
        "samplers/words.py",
        "log_mu = log_mu.double() / options",
        "log_mu = log_mu.double() * options",
        "samplers/samplers",
    ),
    (
        "words: temperature of the draw",
        "samplers/words.py",
        ".div_(options.temperature)",
        ".mul_(options.temperature)",
        "samplers/samplers samplers/laws",
    ),
    (
        "words: half a nucleus",
        "samplers/words.py",
        "options.top_p * mass.sum(-1))",
        "options.top_p * mass.sum(-1) / 2)",
        "samplers/samplers samplers/laws",
    ),
    (
        "words: the last one counted often",
        "samplers/words.py",
        ".double() * (words < mass.shape[-1])",
        ".double()",
        "samplers/samplers samplers/laws",
    ),
    (
        "copy head: gate upside down",
        "model/heads.py",
        "F.logsigmoid(gate), float",
        "F.logsigmoid(-gate), float",
        "model/denoiser",
    ),
    (
        "denoiser: source sees the target",
        "model/passes.py",
        "allowed = allowed & (~is_target[:, None, :] | (draw[:, :, None] == draw[:, None, :]))",
        "pass",
        "model/denoiser",
    ),
    (
        "denoiser: the targets of a row see each other",
        "model/passes.py",
        "(draw[:, :, None] == draw[:, None, :])",
        "is_target[:, :, None]",
        "training/draws",
    ),
    ("draws: all have the time of the first", "training/noising.py", "t.gather(1, draw)", "t[:, :1]", "training/draws"),
    (
        "draws: all pairs have the same noise",
        "training/noising.py",
        "* batch.draws + draw - draw % 2",
        "* batch.draws + 0 * draw",
        "training/draws",
    ),
    (
        "draws: the second hides what the first hides",
        "training/noising.py",
        "LARGEST - uniform, uniform",
        "uniform, uniform",
        "training/draws",
    ),
    (
        "draws: the second has the time of the first",
        "training/noising.py",
        "[t, num_steps + 1 - t]",
        "[t, t]",
        "training/draws",
    ),
    (
        "draws: charged at the time of the first",
        "training/objective.py",
        "t_places = t.flatten()[batch.examples_of(places)]",
        "t_places = t[places[0], 0]",
        "training/draws",
    ),
    (
        "draws: one length for all",
        "training/objective.py",
        "length=batch.draws * F.cross_entropy",
        "length=F.cross_entropy",
        "training/draws",
    ),
    (
        "random numbers: the same for every candidate",
        "diffusion/random_numbers.py",
        "of_text + _STEP * torch.tensor(list(candidates), dtype=torch.int64)",
        "of_text + _STEP * torch.tensor([0 for _ in candidates], dtype=torch.int64)",
        "diffusion/random_numbers generation/batch_independence",
    ),
    (
        "random numbers: a shift that copies the sign",
        "diffusion/random_numbers.py",
        "z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))",
        "z ^ (z >> shift)",
        "diffusion/random_numbers",
    ),
    (
        "ranking: the source beside the text is left out",
        "generation/noisy_channel.py",
        "(without_source(model, canvas, text), backward(model, canvas, text))",
        "(without_source(model, canvas, text),)",
        "generation/noisy_channel",
    ),
]


def mutate(folder: Path, file: str, text: str, replacement: str) -> str:
    """Replace the text in the copy; what is wrong, or nothing."""
    path = folder / "diffusion_bert" / file
    content = path.read_text()
    if content.count(text) != 1:
        return f"the text stands {content.count(text)} times in {file}: correct this mutant"
    path.write_text(content.replace(text, replacement))
    return ""


def test_file(test: str) -> str:
    """The path of a test from its short name, ``wing/name``."""
    wing, name = test.split("/")
    return f"tests/{wing}/test_{name}.py"


def passes(folder: Path, tests: list[str]) -> tuple[bool, str]:
    """Whether the tests pass on the package in that folder, and which failed first. In a fork."""
    log = folder / "log"
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        number = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(number, 1)
        os.dup2(number, 2)
        os.chdir(folder)
        sys.path[:] = [str(folder), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
        import pytest

        code = pytest.main(["-x", "-q", "--no-header", "-p", "no:cacheprovider", "--rootdir", str(folder), *tests])
        sys.stdout.flush()
        os._exit(int(code))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 1, -signal.SIGALRM):
        # a mutant that cannot even be imported proves nothing
        raise SystemExit(f"the tests could not run ({code}):\n{log.read_text()[-3000:]}")
    failed = [
        line.split(" - ")[0].removeprefix("FAILED tests/")
        for line in log.read_text().splitlines()
        if line.startswith("FAILED")
    ]
    return code == 0, failed[0] if failed else "no end" if code else ""


def main() -> int:
    """Run all mutants, or those whose name holds a text."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="mutants whose name holds this text")
    only = parser.parse_args().only
    chosen = [mutant for mutant in MUTANTS if only in mutant[0]]
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import torch  # noqa: F401
    from transformers import BertForMaskedLM, DynamicCache  # noqa: F401

    began, survivors = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="mutants_") as place:
        whole = Path(place) / "whole"
        for name in ("diffusion_bert", "tests", "tools", "configs"):
            shutil.copytree(ROOT / name, whole / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", whole)
        files = sorted({test_file(test) for mutant in chosen for test in mutant[4].split()})
        fine, failed = passes(whole, files)
        if not fine:
            raise SystemExit(f"the tests fail on the unchanged package: {failed}")
        for name, file, text, replacement, tests in chosen:
            folder = Path(shutil.copytree(whole, Path(place) / "mutant", ignore=shutil.ignore_patterns("__pycache__")))
            problem = mutate(folder, file, text, replacement)
            alive, by = (True, problem) if problem else passes(folder, [test_file(test) for test in tests.split()])
            print(f"{'SURVIVES' if alive else 'caught  '}  {name:<50} {by}", flush=True)
            survivors += [name] if alive else []
            shutil.rmtree(folder)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught in {time.monotonic() - began:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
