"""Our decoding against a plain loop, its exactness, and what a user waits for: an answer, the prompt, --help.

    python -m benchmarks.speed.sampling
    python -m benchmarks.speed.sampling --checkpoint runs/NAME/best_model.pt --test_file path/to/valid.jsonl

speed: sources per second for several lengths x candidates of every source, sampling on, in turns A B A B. The plain
loop is what one writes first: a canvas of 64 [MASK]s after the source, the whole sequence through BERT in every call,
words drawn at all its places, no copy head; the same number of calls and candidates. ours: ``decode``, with all that it
computes.
exact: in float64 at temperature 0 the words are the same as those of a slow reference that takes one canvas at a time,
encodes the source again in every call and computes the words of every place; the program stops with an error if one
differs.
quality: (with --checkpoint and --test_file) BLEU, ROUGE-L and seconds at 4, 8 and 16 calls, temperature 0, likeliest
length.
wait: one answer of the command loop with three candidates, after loading; the command loop's start to its prompt;
--help and a refusal. Without a checkpoint: random weights of a built-in size and made-up words, lengths like those of
Quora questions.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch

from benchmarks.common import PROMPT, machine, ratio, synthetic_model, time_in_turns, zipf_words
from benchmarks.speed.sampling_references import plain_loop, slow_reference
from benchmarks.speed.waiting import wait
from diffusion_bert.commands.cli import whole_number
from diffusion_bert.config.schema import BUILT_IN_SIZES, SamplingConfig
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.reading import read_file
from diffusion_bert.data.skills import PAIR
from diffusion_bert.errors import UserError
from diffusion_bert.generation.canvas import blank_canvas
from diffusion_bert.generation.decoding import decode
from diffusion_bert.generation.generator import DiffusionTextGenerator
from diffusion_bert.machine.device import pick_device
from diffusion_bert.model.checkpoint import load_checkpoint
from diffusion_bert.model.diffusion_model import DiffusionModel
from diffusion_bert.text import metrics
from diffusion_bert.text.metrics import metric_text

PARTS = ("speed", "exact", "quality", "wait")
BARE = {"known_words": False, "rank_by": "revealed"}  # the sampler alone


def arguments(argv=None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--checkpoint", metavar="FILE", help="checkpoint to measure (default: random weights)")
    parser.add_argument("--test_file", metavar="FILE", help="sources (and references) for it: .jsonl, .csv or .tsv")
    parser.add_argument(
        "--size",
        choices=tuple(BUILT_IN_SIZES),
        default="mini",
        help="built-in size without a checkpoint (default: mini)",
    )
    parser.add_argument(
        "--vocab_size", type=whole_number, default=8000, help="word pieces without a checkpoint (default: 8000)"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help=f"comma-separated, default {','.join(PARTS)}")
    for name, default, text in (
        ("sources", 4, "sources for the speed"),
        ("lengths", 3, "lengths per source"),
        ("candidates", 10, "candidates per length"),
        ("num_steps", 10, "denoiser calls per candidate"),
        ("batch_size", 128, "candidates denoised together"),
        ("rounds", 3, "timed rounds"),
        ("check_sources", 200, "sources for the exactness"),
        ("quality_sources", 200, "sources for the quality"),
        ("threads", None, "CPU threads"),
    ):
        parser.add_argument(
            f"--{name}", type=whole_number, default=default, help=f"{text} (default: {default})" if default else text
        )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    return parser.parse_args(argv)


def load(options: argparse.Namespace) -> DiffusionModel:
    """The checkpoint, or random weights of a built-in size."""
    if options.checkpoint:
        return load_checkpoint(options.checkpoint).to(pick_device(options.device))
    layers, width, heads = BUILT_IN_SIZES[options.size]
    return synthetic_model(layers, width, heads, options.vocab_size, 128, options.seed, max_target_length=64).to(
        pick_device(options.device)
    )


def some_sources(model: DiffusionModel, options: argparse.Namespace, count: int) -> list[list[int]]:
    """Ids of ``count`` sources: from the file, or random ones of 7 to 20 word pieces."""
    if options.test_file:
        texts = [pair.source for pair in read_file(options.test_file).pairs if pair.source]
        encoded = [ids for ids in model.tokenizer.encode_many(texts[: 2 * count]) if 2 < len(ids) <= 30]
        return (encoded * (count // max(1, len(encoded)) + 1))[:count]
    generator = torch.Generator().manual_seed(options.seed)
    lengths = torch.randint(7, 21, (count,), generator=generator).tolist()
    return [zipf_words(length, model.tokenizer.vocab_size, generator).tolist() for length in lengths]


def canvases_of(model: DiffusionModel, sources: list[list[int]], lengths: int, candidates: int):
    """Blank targets: the length of the source, one less, one more ..., each ``candidates`` times."""
    mask_id, canvases = model.tokenizer.mask_id, []
    for source in sources:
        for number in range(lengths):
            length = max(1, len(source) + (number + 1) // 2 * (-1 if number % 2 else 1))
            canvases += [blank_canvas(PAIR, source, length, mask_id) for _ in range(candidates)]
    return canvases


# ---- speed ---------------------------------------------------------------------------------------------------------


def speed(model: DiffusionModel, options: argparse.Namespace) -> float:
    """Print sources per second of both; returns the ratio of the medians."""
    from transformers import BertConfig, BertForMaskedLM

    bert = (
        BertForMaskedLM(BertConfig.from_dict({**model.denoiser.bert_config.to_dict(), "is_decoder": False}))
        .to(model.device)
        .eval()
    )
    bert.load_state_dict(model.denoiser.mlm.state_dict(), strict=False)
    sources = some_sources(model, options, options.sources)
    canvases = canvases_of(model, sources, options.lengths, options.candidates)
    each = options.lengths * options.candidates
    settings = SamplingConfig(sampler="confidence", num_steps=options.num_steps, batch_size=options.batch_size, **BARE)
    collator, calls = Collator(model.tokenizer, PROMPT), []

    def ours() -> None:
        calls[:] = [output.nfe for output in decode(model, canvases, settings, collator, options.seed)]

    def plain() -> None:
        plain_loop(bert, model, sources, each, options.num_steps, settings.temperature, options.batch_size)

    synchronize = torch.cuda.synchronize if model.device.type == "cuda" else lambda: None
    seconds = time_in_turns({"ours": ours, "plain": plain}, options.rounds, 1, synchronize)
    print(
        f"\nspeed: {len(sources)} sources of {statistics.mean(map(len, sources)):.1f} word pieces, {options.lengths}"
        f" lengths x {options.candidates} candidates, at most {options.num_steps} calls each (ours used"
        f" {statistics.mean(calls):.1f})"
    )
    for name in ("ours", "plain"):
        print(f"  {name:6s} {len(sources) / statistics.median(seconds[name]):8.3f} sources/s")
    print(f"  ours is faster by {ratio(seconds['plain'], seconds['ours'])}")
    return statistics.median(seconds["plain"]) / statistics.median(seconds["ours"])


# ---- exactness -----------------------------------------------------------------------------------------------------


def exact(model: DiffusionModel, options: argparse.Namespace) -> None:
    """Compare ``decode`` with the slow reference in float64; raises RuntimeError when a word differs."""
    if model.denoiser.self_conditioning is not None:
        print("\nexact: left out; this model hands its guesses from call to call, which the reference does not")
        return
    model.denoiser.double()
    sources = some_sources(model, options, options.check_sources)
    canvases = canvases_of(model, sources, 1, 1)
    settings = SamplingConfig(
        sampler="confidence",
        num_steps=options.num_steps,
        temperature=0.0,
        no_repeat="off",
        batch_size=options.batch_size,
        **BARE,
    )
    fast = [output.ids for output in decode(model, canvases, settings, Collator(model.tokenizer, PROMPT), options.seed)]
    different = sum(
        ids != slow_reference(model, canvas, options.num_steps, "confidence") for ids, canvas in zip(fast, canvases)
    )
    model.denoiser.float()
    print(
        f"\nexact: {len(canvases) - different} of {len(canvases)} sources get the same words as from the slow reference"
        " (float64, temperature 0)"
    )
    if different:
        raise RuntimeError(f"decode differs from the slow reference on {different} of {len(canvases)} sources")


# ---- quality -------------------------------------------------------------------------------------------------------


def quality(model: DiffusionModel, options: argparse.Namespace) -> None:
    """BLEU, ROUGE-L and seconds per source at 4, 8 and 16 calls."""
    pairs = [pair for pair in read_file(options.test_file).pairs if pair.source][: options.quality_sources]
    generator = DiffusionTextGenerator(model)
    examples = [(PAIR, ids) for ids in model.tokenizer.encode_many([pair.source for pair in pairs])]
    print(
        f"\nquality: {len(pairs)} sources, temperature 0, likeliest length\n| calls | BLEU | ROUGE-L | s/source"
        " |\n|---|---|---|---|"
    )
    for steps in (4, 8, 16):
        settings = SamplingConfig(
            num_steps=steps, temperature=0.0, length_beam=1, batch_size=options.batch_size, rank_by="revealed"
        )
        start = time.perf_counter()
        outputs = generator.generate_ids(examples, settings, [1] * len(examples), options.seed)
        seconds = time.perf_counter() - start
        texts = [
            (metric_text(pair.target), metric_text(generator.sentence(output[0].ids, pair.source)))
            for pair, output in zip(pairs, outputs)
        ]
        bleu, rouge = (
            metrics.mean([score(*both) for both in texts]) for score in (metrics.sentence_bleu, metrics.rouge_l)
        )
        print(f"| {steps} | {bleu:.2f} | {rouge:.2f} | {seconds / len(pairs):.4f} |")


def main(argv=None) -> int:
    """Measure and print."""
    options = arguments(argv)
    parts = [part.strip() for part in options.parts.split(",") if part.strip()]
    if unknown := [part for part in parts if part not in PARTS]:
        raise UserError(f"parts has '{unknown[0]}': expected some of {', '.join(PARTS)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    model = load(options)
    print(machine())
    print(
        f"{options.checkpoint or f'random weights, size {options.size}'}: {model.parameter_count / 1e6:.1f}M"
        f" parameters, {model.tokenizer.vocab_size:,} word pieces, {model.config.model.attention} attention, seed"
        f" {options.seed}"
    )
    if "speed" in parts:
        speed(model, options)
    if "exact" in parts:
        exact(model, options)
    if "quality" in parts:
        if options.checkpoint and options.test_file:
            quality(model, options)
        else:
            print("\nquality: left out; it needs --checkpoint and --test_file")
    if "wait" in parts:
        wait(model, options, some_sources(model, options, 3))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
