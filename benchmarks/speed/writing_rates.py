"""How many texts a second every sampler writes, at several batch sizes, and how often the host reads the device.

    python -m benchmarks.speed.writing_rates --checkpoint FILE --device cuda --batch_sizes 1024,4096

One batch of candidates for sources of the test file (default: the test pairs of the bundled grammar), four lengths
each, by the sampler alone: no rules on words, no ranking. Reads: what one small batch copies from the device to the
host, counted by torch's profiler, for each call of the denoiser. On a CPU, where nothing is copied, the operations are
counted at which the host would wait for a device.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path

import torch

from benchmarks.common import PROMPT, machine, markdown_table
from benchmarks.speed.sampling import BARE, canvases_of
from diffusion_bert.commands.cli import guarded, whole_number
from diffusion_bert.config.schema import SAMPLER_NAMES, SamplingConfig
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.grammar import Grammar
from diffusion_bert.data.reading import read_file
from diffusion_bert.errors import UserError
from diffusion_bert.generation.decoding import decode
from diffusion_bert.generation.denoise import GuidedDenoiser
from diffusion_bert.machine.device import pick_device
from diffusion_bert.model.checkpoint import load_checkpoint

LENGTHS, FEW = 4, 32  # lengths of a source; candidates for which reads are counted
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select")


def arguments(argv=None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="the model that writes")
    parser.add_argument("--test_file", metavar="FILE", help="sources: .jsonl, .csv or .tsv (default: the grammar's)")
    parser.add_argument("--batch_sizes", default="1024,4096", help="comma-separated (default: 1024,4096)")
    parser.add_argument("--num_steps", type=whole_number, default=10, help="calls at most (default: 10)")
    parser.add_argument("--rounds", type=whole_number, default=3, help="timed rounds (default: 3)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    options = parser.parse_args(argv)
    sizes = options.batch_sizes.split(",")
    if not all(size.strip().isdecimal() and int(size) for size in sizes):
        raise UserError(f"batch_sizes is '{options.batch_sizes}': expected numbers such as 1024,4096")
    options.sizes = [int(size) for size in sizes]
    return options


@contextlib.contextmanager
def counted_calls():
    """Within this block every call of a denoiser by a sampler adds to the list that is yielded."""
    calls, ask = [], GuidedDenoiser.__call__

    def counted(self, *args):
        calls.append(1)
        return ask(self, *args)

    GuidedDenoiser.__call__ = counted
    try:
        yield calls
    finally:
        GuidedDenoiser.__call__ = ask


def reads_per_call(write, on_gpu: bool) -> float:
    """How often the host waits for the device during ``write()``, over its calls of the denoiser."""
    write()
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if on_gpu else []
    with counted_calls() as calls, torch.profiler.profile(activities=activities) as recorded:
        write()
        if on_gpu:
            torch.cuda.synchronize()
    averages = recorded.key_averages()
    wanted = (lambda key: "DtoH" in key) if on_gpu else (lambda key: key in WAITS)
    return sum(entry.count for entry in averages if wanted(entry.key)) / max(1, len(calls))


def main(argv=None) -> int:
    """Measure and print."""
    options = arguments(argv)
    model = load_checkpoint(options.checkpoint).to(pick_device(options.device))
    on_gpu = model.device.type == "cuda"
    largest = max(FEW, *options.sizes)
    if options.test_file:
        texts = [pair.source for pair in read_file(options.test_file).pairs if pair.source]
    else:
        texts = [source for source, _ in Grammar.load().pairs("test", min(1000, largest))]
    sources = [ids for ids in model.tokenizer.encode_many(texts) if 0 < len(ids) < model.denoiser.max_target_length - 2]
    if not sources:
        raise UserError(f"{options.test_file}: no source fits the model; give a file with shorter ones")
    many = canvases_of(model, sources, LENGTHS, -(-largest // (LENGTHS * len(sources))))
    # a part with all lengths of some sources
    generator = torch.Generator().manual_seed(options.seed)
    many = [many[index] for index in torch.randperm(len(many), generator=generator).tolist()]
    collator, rows = Collator(model.tokenizer, PROMPT), []
    for sampler in SAMPLER_NAMES:
        for size in options.sizes:
            settings = SamplingConfig(sampler=sampler, num_steps=options.num_steps, batch_size=size, **BARE)

            def write(count: int, settings=settings):
                return decode(model, many[:count], settings, collator, options.seed)

            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            outputs, seconds = write(size), []
            for _ in range(options.rounds):
                start = time.perf_counter()
                outputs = write(size)  # its words are on the host: nothing is left to wait for
                seconds.append(time.perf_counter() - start)
            row = {
                "sampler": sampler,
                "batch": size,
                "texts/s": round(size / statistics.median(seconds), 1),
                "calls": round(statistics.mean(output.nfe for output in outputs), 1),
                "peak MB": round(torch.cuda.max_memory_allocated() / 2**20) if on_gpu else "",
            }
            if on_gpu and size == options.sizes[0]:  # on a CPU nothing waits
                row["reads per call"] = round(reads_per_call(lambda write=write: write(FEW), on_gpu), 1)
            rows.append(row)
    print(f"{machine()}\n\n{markdown_table(rows)}")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
