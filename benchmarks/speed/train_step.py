"""Our training step against the losses of others, on the same BERT: time, memory, and how much of the machine is used.

    python -m benchmarks.speed.train_step
    python -m benchmarks.speed.train_step --device cuda --batch_size 256 --compile
    python -m benchmarks.speed.train_step --checkout_original path/to/Diffusion-BERT --checkout_mdlm path/to/mdlm

Every variant is a whole optimizer step: noise, forward, loss, backward, clipping, fused AdamW; no dropout; random
weights; every place of the canvas in use, half of it target. ``ours`` is ``Trainer.step`` itself, with all that it
computes (copy head, length head, the terms of the NELBO, time correction); ``ours_2_draws`` noises two targets beside
each source (``noise_draws: 2``), of half as many sources: every variant trains on ``batch_size`` noised targets, each
of which sees its whole source. Each variant has a process of its own, in which ours keeps freed memory, as our programs
do. They run in turns, A B C A B C, each with an untimed step before the timed one; medians are printed, with the
quartiles of the ratios over the turns.

Matrix FLOPs are counted, not estimated, by ``torch.utils.flop_counter`` on one step of each variant (attention
included), and divided by the measured time and by the best 2048 x 2048 matrix product of the same run. Peak memory on a
CPU is measured in a child process per variant: the highest resident size during three steps (the kernel's VmHWM, reset
before) over the resident size after one warm-up step, when the weights and the state of AdamW are there; on a GPU it is
``max_memory_allocated`` over the same base. Both hold gradients, activations and the loss. With a checkout of another's
code, its own loss is timed as well, beside our few lines for it.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.common import ROOT, machine, markdown_table, matmul_peak, time_in_turns
from benchmarks.speed.memory import peak_memory
from benchmarks.speed.operations import count_flops, profile
from benchmarks.speed.train_rows import beside_checkouts, rows_of
from benchmarks.speed.train_variants import COUNTERPART, NAMES, make_step
from diffusion_bert.commands.cli import guarded, whole_number
from diffusion_bert.errors import UserError
from diffusion_bert.machine.device import pick_device
from diffusion_bert.machine.memory import keep_freed_memory

WARM_STEPS = 1  # untimed steps before each timed one


def arguments(argv=None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    for name, default, text in (
        ("layers", 6, "layers"),
        ("width", 384, "hidden size"),
        ("heads", 12, "attention heads"),
        ("vocab_size", 30522, "word pieces"),
        ("batch_size", 16, "examples per step"),
        ("length", 64, "places per example, half of them target"),
        ("steps", 8, "timed steps per variant"),
        ("threads", None, "CPU threads (default: torch's own choice)"),
    ):
        parser.add_argument(
            f"--{name}", type=whole_number, default=default, help=f"{text} (default: {default})" if default else text
        )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), help="of all variants alike (default: bf16 on cuda, else fp32)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the encoder of every variant")
    parser.add_argument("--loss", choices=("ce", "nelbo"), default="ce", help="what our step minimises (default: ce)")
    parser.add_argument(
        "--variants",
        default="ours,ours_2_draws,ours_no_copy,masked_only,hugging_face,mdlm,mdlm_subs,original",
        help="comma-separated, default all",
    )
    parser.add_argument(
        "--checkout_original", metavar="DIR", help="a checkout of Hzfinfdu/Diffusion-BERT: time its loss too"
    )
    parser.add_argument(
        "--checkout_mdlm", metavar="DIR", help="a checkout of kuleshov-group/mdlm or ZHZisZZ/dllm: time its loss too"
    )
    parser.add_argument("--no_memory", action="store_true", help="leave the memory measurement out")
    parser.add_argument(
        "--keep_freed_memory", action="store_true", help="let all variants keep freed memory, not ours alone"
    )
    parser.add_argument("--json", metavar="FILE", help="write the rows of the table there too")
    parser.add_argument("--profile", action="store_true", help="print where the time of our step goes and stop")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)  # the child process
    options = parser.parse_args(argv)
    options.precision = options.precision or ("bf16" if options.device.startswith("cuda") else "fp32")
    return options


def set_up(variant: str, argv: list[str]):
    """(the flags, the device, the variant's step) in a process that is to run this variant alone. Ours keeps freed
    blocks, as our programs do (diffusion_bert/machine/memory.py); the others have the C library's own habit.
    """
    options = arguments(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    device = pick_device(options.device)
    step = make_step(variant, options, device)
    keep_freed_memory(variant.startswith("ours") or options.keep_freed_memory)
    return options, device, step


def serve(variant: str, argv: list[str], pipe) -> None:
    """The other end of a ``Worker``: one answer to each request, until there are no more."""
    try:
        _, device, step = set_up(variant, argv)
        works = {"step": step, "flops": lambda: count_flops(step), "memory": lambda: peak_memory(step, device)}
        pipe.send(None)
        while (request := pipe.recv()) is not None:
            answer = works[request]()
            if device.type == "cuda":
                torch.cuda.synchronize()
            pipe.send(answer)
    except Exception as error:  # the parent tells the user
        pipe.send(error)


class Worker:
    """A variant in a process of its own, as its users run it: it shares neither heap nor threads with the others. Its
    first ``answer`` says that it is ready.
    """

    def __init__(self, variant: str, argv: list[str]):
        self.pipe, other = multiprocessing.Pipe()
        # not a fork: that would inherit a heap, and CUDA does not allow it
        multiprocessing.get_context("spawn").Process(target=serve, args=(variant, argv, other), daemon=True).start()
        other.close()

    def answer(self):
        """What the process answers, once it does; its error is raised here."""
        value = self.pipe.recv()
        if isinstance(value, Exception):
            raise value
        return value

    def ask(self, request: str | None):
        """One request and its answer: "step", "flops", "memory", or None to end."""
        self.pipe.send(request)
        return None if request is None else self.answer()


# ---- memory --------------------------------------------------------------------------------------------------------


def peak_in_child(variant: str, argv: list[str]) -> int | None:
    """``peak_memory`` of a variant in a process of its own, which gives freed memory back at once; None where there is
    no /proc.
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "benchmarks.speed.train_step", *argv, "--memory_of", variant]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {variant} failed: {done.stderr.strip()[-400:]}")
    return int(done.stdout.split()[-1])


# ---- the report ----------------------------------------------------------------------------------------------------


def main(argv=None) -> int:
    """Measure and print."""
    given = sys.argv[1:] if argv is None else list(argv)
    options = arguments(given)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    if options.memory_of:
        _, device, step = set_up(options.memory_of, given)
        print(peak_memory(step, device))
        return 0
    variants = [name.strip() for name in options.variants.split(",") if name.strip()]
    variants += [name for name in COUNTERPART if getattr(options, name)]
    if unknown := [name for name in variants if name not in NAMES]:
        raise UserError(f"variants has '{unknown[0]}': expected some of {', '.join(NAMES)}")
    print(machine())
    print(
        f"{options.layers} layers, {options.width} wide, {options.heads} heads, {options.vocab_size:,} word pieces;"
        f" batch {options.batch_size} x {options.length}, half target;"
        f" {options.precision}{', compiled' if options.compile else ''}; loss"
        f" {options.loss}; {options.steps} steps each, in turns; seed {options.seed}"
    )
    if options.profile:
        print(profile(set_up(variants[0], given)[2]))
        return 0
    workers = {name: Worker(name, given) for name in variants}
    for worker in workers.values():
        worker.answer()
    steps = {name: functools.partial(worker.ask, "step") for name, worker in workers.items()}
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    peak = matmul_peak(device, dtype)
    seconds = time_in_turns(steps, options.steps, 0, before=lambda name: [steps[name]() for _ in range(WARM_STEPS)])
    peak = max(peak, matmul_peak(device, dtype))
    flops = {name: worker.ask("flops") for name, worker in workers.items()}
    on_gpu, measured = device.type == "cuda", not options.no_memory
    memory = {name: worker.ask("memory") if on_gpu and measured else None for name, worker in workers.items()}
    for worker in workers.values():
        worker.ask(None)
    if measured and not on_gpu:
        memory = {name: peak_in_child(name, given) for name in variants}
    rows = rows_of(variants, options, seconds, flops, peak, memory)
    print(f"matrix products of 2048 x 2048: {peak / 1e9:,.1f} GFLOP/s\n\n{markdown_table(rows.values())}")
    for line in beside_checkouts(variants, seconds):
        print(line)
    if options.json:
        Path(options.json).write_text(json.dumps(list(rows.values()), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
