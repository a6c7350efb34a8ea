"""Several processes: torch's DistributedDataParallel against our own sum of one flat gradient, on the same steps.

    python -m benchmarks.speed.ddp
    python -m benchmarks.speed.ddp --layers 2 --width 128 --heads 4 --vocab_size 2000

Two gloo processes for each way, on one machine, one thread each; the ways take turns, A B A B, each with an untimed
step before the timed one. A step is what ``Trainer`` does: loss of the process's own half of the batch, backward, the
gradients added up over the processes, clipping, fused AdamW.

flat: every gradient is a view of one tensor, which is summed after the backward pass (``flat_gradients``), as our
trainer does. ddp: torch's, with its buckets of 25 MB, which are summed while the backward pass goes on, and gradients
that are views of them. Its mean over the processes is made a sum by a factor in the loss, exact for two. Gradients of
the first step are compared element by element. Peak memory as in train_step.py, in every process by itself.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import socket
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.common import PROMPT, machine, markdown_table, ratio, synthetic_model, synthetic_pairs, time_in_turns
from benchmarks.speed.memory import peak_memory
from diffusion_bert.commands.cli import guarded, whole_number
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.skills import PAIR
from diffusion_bert.errors import UserError
from diffusion_bert.machine.memory import keep_freed_memory
from diffusion_bert.machine.processes import flat_gradients, join, shutdown
from diffusion_bert.training.noising import noised, on_host
from diffusion_bert.training.objective import LossOptions, nelbo_terms, training_loss
from diffusion_bert.training.optimizer import make_optimizer

WAYS = ("flat", "ddp")
STEPS, RATE = 64, 1e-4  # diffusion steps; the learning rate


def arguments(argv=None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    for name, default, text in (
        ("layers", 6, "layers"),
        ("width", 384, "hidden size"),
        ("heads", 12, "attention heads"),
        ("vocab_size", 30522, "word pieces"),
        ("batch_size", 32, "examples per step, of all processes together"),
        ("length", 30, "places per example, half of them target"),
        ("steps", 12, "timed steps of each way"),
        ("processes", 2, "processes of each way"),
    ):
        parser.add_argument(f"--{name}", type=whole_number, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    return parser.parse_args(argv)


class Loss(nn.Module):
    """The loss as a module, since torch's wrapper wants its forward pass."""

    def __init__(self, model, factor: float):
        super().__init__()
        self.denoiser, self.diffusion, self.factor = model.denoiser, model.diffusion, factor

    def forward(self, part, masked: float, tokens: float) -> torch.Tensor:
        noisy = (part.batch, part.x_t, part.t, STEPS)
        terms = nelbo_terms(self.denoiser, self.diffusion, *noisy, True, LossOptions(False), places=part.places)
        return self.factor * training_loss(terms, "ce", 0.0, masked, tokens)


class Step:
    """A training step of this process, one of several; ``way`` says how the gradients are added up."""

    def __init__(self, way: str, options: argparse.Namespace):
        torch.set_num_threads(1)
        keep_freed_memory()
        self.processes = join("cpu")
        size, rows = self.processes.size, options.batch_size // self.processes.size
        shape = options.layers, options.width, options.heads, options.vocab_size, options.length, options.seed
        model = synthetic_model(*shape, batch_size=rows)
        self.denoiser = model.denoiser.train()
        pairs = synthetic_pairs(model, options.batch_size, options.length, options.seed)
        own = np.arange(rows * self.processes.rank, rows * (self.processes.rank + 1))
        batch = Collator(model.tokenizer, PROMPT).gather(pairs, own, np.full(rows, PAIR))
        t = torch.full((rows, 1), STEPS // 2)
        start = rows * self.processes.rank
        self.part = noised(batch, t, STEPS, on_host(model.diffusion), options.seed, start, torch.device("cpu"))
        counts = self.processes.gather([float(self.part.masked), float(self.part.tokens)])
        self.counts = [sum(column) for column in zip(*counts)]
        self.flat = flat_gradients(self.denoiser.parameters()) if way == "flat" else None
        self.loss: nn.Module = Loss(model, 1.0 if way == "flat" else float(size))
        if way == "ddp":
            self.loss = nn.parallel.DistributedDataParallel(self.loss, gradient_as_bucket_view=True)
        self.optimizer = make_optimizer(self.denoiser, RATE, 0.01)

    def backward(self) -> None:
        """The gradients of the whole batch, in every process."""
        self.loss(self.part, *self.counts).backward()
        if self.flat is not None:
            self.processes.sum_(self.flat)

    def gradients(self) -> torch.Tensor:
        """One vector of the gradients of a first step; none is taken."""
        self.backward()
        found = torch.cat([parameter.grad.flatten() for parameter in self.denoiser.parameters()])
        self.forget()
        return found

    def forget(self) -> None:
        self.optimizer.zero_grad() if self.flat is None else self.flat.zero_()

    def __call__(self) -> None:
        self.backward()
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in self.denoiser.parameters()])
        self.optimizer.grad_scale = norm.clamp(min=1.0).float()
        self.optimizer.step()
        self.forget()


def serve(way: str, options: argparse.Namespace, rank: int, port: int, pipe) -> None:
    """A process of a ``Team``: one answer to each request, until there are no more."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(options.processes), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        step = Step(way, options)
        pipe.send(None)
        while (request := pipe.recv()) is not None:
            if request == "gradients":
                pipe.send(step.gradients().numpy())
            else:
                pipe.send(step() if request == "step" else peak_memory(step, torch.device("cpu")))
    except Exception as error:  # the parent tells the user
        pipe.send(error)
    finally:
        shutdown()


class Team:
    """The processes of one way."""

    def __init__(self, way: str, options: argparse.Namespace):
        context, port = multiprocessing.get_context("spawn"), free_port()
        self.pipes = []
        for rank in range(options.processes):
            pipe, other = multiprocessing.Pipe()
            context.Process(target=serve, args=(way, options, rank, port, other), daemon=True).start()
            other.close()
            self.pipes.append(pipe)
        self.answers()

    def answers(self) -> list:
        """What each process answers; the error of one is raised here."""
        values = [pipe.recv() for pipe in self.pipes]
        for value in values:
            if isinstance(value, Exception):
                raise value
        return values

    def ask(self, request: str | None) -> list:
        """One request to all, and their answers: "step", "memory", "gradients", or None to end."""
        for pipe in self.pipes:
            pipe.send(request)
        return [] if request is None else self.answers()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main(argv=None) -> int:
    """Measure and print."""
    options = arguments(argv)
    if options.batch_size % options.processes:
        raise UserError(f"batch_size is {options.batch_size}: expected a multiple of the {options.processes} processes")
    teams = {way: Team(way, options) for way in WAYS}
    vectors = {way: team.ask("gradients") for way, team in teams.items()}
    largest = max(float(abs(vector).max()) for vector in vectors["flat"])
    apart = max(float(abs(one - other).max()) for one, other in zip(vectors["flat"], vectors["ddp"]))
    works = {way: functools.partial(team.ask, "step") for way, team in teams.items()}
    seconds = time_in_turns(works, options.steps, 0, before=lambda way: works[way]())
    memory = {way: team.ask("memory") if Path("/proc/self/clear_refs").exists() else [] for way, team in teams.items()}
    for team in teams.values():
        team.ask(None)
    names = {"flat": "our flat sum", "ddp": "DistributedDataParallel"}
    rows = [
        {
            "gradients summed by": names[way],
            "ms a step": round(1000 * statistics.median(seconds[way]), 1),
            "times ours (quartiles)": ratio(seconds[way], seconds["flat"]),
            "peak MB a process": round(max(memory[way]) / 2**20) if memory[way] else "",
        }
        for way in WAYS
    ]
    print(
        f"{machine()}\n{len(vectors['flat'][0]) / 1e6:.1f}M parameters, {options.layers} layers, {options.width} wide,"
        f" {options.vocab_size:,} word pieces; batch {options.batch_size} x {options.length} of {options.processes}"
        f" gloo processes, one thread each, float32; {options.steps} steps each, in turns; seed {options.seed}\n"
        f"gradients of the first step: largest {largest:.3g}, farthest apart {apart:.3g}\n\n{markdown_table(rows)}"
    )
    if options.json:
        found = {"rows": rows, "largest": largest, "apart": apart}
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
