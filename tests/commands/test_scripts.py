"""The four scripts as real processes: help at once, version, any current directory, pipes."""

import os
import resource
import subprocess
import sys

import pytest

from tests.helpers.scripts import ROOT, SCRIPTS, run, start

GROUPS = {
    "run_conditional_training": ("settings from a file:", "model:", "data:", "diffusion:", "training:"),
    "continue_training": ("settings from a file:", "data:", "diffusion:", "training:", "what to start from:"),
    "evaluate_trained_model": ("what to evaluate:", "sampling:"),
    "interactive_generation": ("model:", "sampling:"),
}
OPTIONS = {
    "run_conditional_training": (
        "task_name data_dir train_file valid_file test_file max_samples max_bad_rows model_name_or_path from_scratch "
        "attention copy_head timestep num_steps schedule word_freq_lambda loss hybrid_lambda epochs max_steps "
        "max_minutes patience batch_size accumulation_steps lr warmup_ratio weight_decay max_grad_norm max_length "
        "max_target_length source_dropout precision num_workers seed device output_dir eval_steps save_steps "
        "logging_steps demonstration_steps dry_run version preset config"
    ),
    "continue_training": (
        "checkpoint model_dir auto preset resume task_name train_file epochs lr num_steps output_dir dry_run version"
    ),
    "evaluate_trained_model": (
        "checkpoint split test_file examples max_samples num_steps sampler mbr batch_size seed device output_dir"
        " version"
    ),
    "interactive_generation": (
        "checkpoint device batch_size num_samples num_steps sampler temperature top_k top_p seed version"
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_instant(script, tmp_path):
    """--help answers in under two seconds of processor time from any directory, and its options stand in groups."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, ROOT / f"{script}.py", "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and done.stderr == ""
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0
    for group in GROUPS[script]:
        assert f"\n{group}\n" in done.stdout, group
    for option in OPTIONS[script].split():
        assert f"--{option}" in done.stdout, option


def test_nothing_heavy_for_help():
    """Reading the flags of any script imports neither torch nor transformers, datasets, matplotlib or numpy."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + "".join(
        f"import {script}\ntry: {script}.main(['--help'])\nexcept SystemExit: pass\n" for script in SCRIPTS
    )
    code += (
        "print(sorted({'torch', 'transformers', 'datasets', 'matplotlib', 'numpy', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_nothing_heavy_for_a_wrong_path(tmp_path):
    """A checkpoint that is not there, and none at all, are refused before torch is imported."""
    code = f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); os.chdir({str(tmp_path)!r})\n"
    code += "import pathlib, diffusion_bert.config.paths as finding; finding.BUNDLED = pathlib.Path('none')\n"
    code += "".join(
        f"import {script}\nassert {script}.main({argv}) == 2\n"
        for script in SCRIPTS[1:]
        for argv in (["--checkpoint", "nowhere.pt"], ["--seed", "1"])
    )
    code += "print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == ["[]"] and done.stderr.count("no such checkpoint") == 3, done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_version(script):
    """--version tells the package's version."""
    from diffusion_bert import __version__

    result = run(script, "--version")
    assert result.code == 0 and result.out.strip() == f"diffusion-bert {__version__}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_thin(script):
    """Fewer than 100 lines: a docstring with two real commands, main(argv=None), one call."""
    text = (ROOT / f"{script}.py").read_text()
    docstring = text.split('"""')[1]
    assert len(text.splitlines()) < 100 and "def main(argv=None) -> int:" in text
    assert sum(line.strip().startswith(("python ", "printf ")) for line in docstring.splitlines()) >= 2


def test_piped_session(trained, tmp_path):
    """printf '...' | interactive_generation.py: every command answered with at least two candidates, no special token,
    exit code 0.
    """
    lines = (
        "para How can I learn to cook?\nfill The weather is nice today and we go out.\ncomplete The best way\nmask The"
        " [MASK] is open [MASK].\nquit\n"
    )
    process = start(
        "interactive_generation",
        "--checkpoint",
        trained / "best_model.pt",
        "--num_steps",
        "4",
        "--device",
        "cpu",
        cwd=tmp_path,
    )
    out, err = process.communicate(lines, timeout=120)
    assert process.returncode == 0 and "Traceback" not in err and err.strip() == "", err
    answers = out.split("Enter command: ")[1:]
    assert len(answers) == 5
    for line, answer in zip(lines.splitlines(), answers[:4]):
        shown, *candidates = answer.strip().splitlines()
        assert shown == line and "  2. " in answer and len(candidates) >= 2
        assert not any(
            token in text for text in candidates for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "##")
        )
    assert list(tmp_path.iterdir()) == []


def test_output_into_a_closed_pipe(trained):
    """`... --help | head -1` ends quietly."""
    command = f"{sys.executable} {ROOT}/run_conditional_training.py --help | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, env={**os.environ})
    assert done.stdout.startswith("usage:") and done.stderr == ""


def test_a_mistake_in_a_real_process(tmp_path):
    """One line on stderr, exit code 2, no traceback, no file."""
    process = start("run_conditional_training", "--preset", "quick_demo", "--epochs", "0", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and out == "" and err == "error: --epochs is 0: expected at least 1\n"
    assert list(tmp_path.iterdir()) == []
