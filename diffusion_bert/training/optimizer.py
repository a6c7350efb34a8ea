"""AdamW, the course of the learning rate, and a running average of the weights (Polyak averaging)."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from ..errors import UserError


def make_optimizer(module: torch.nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW in which matrices decay, biases and norms do not."""
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=parameters[0].device.type in ("cpu", "cuda"))


def warmup_then_decay(done: float, warmup: float, total_steps: int) -> float:
    """Factor of the learning rate when the share ``done`` of training is over: a linear rise over the share ``warmup``,
    then linearly to zero.
    """
    if done < warmup:
        return (done + 1 / total_steps) / (warmup + 1 / total_steps)
    return (1 - done) / (1 - warmup) if warmup < 1 else 1.0


class WeightAverage:
    """average <- d average + (1 - d) weights after every step, with d = min(decay, (1 + n) / (10 + n)) at the n-th
    update.

    The rising d lets the random start be forgotten in short runs as well. Kept in float32 on the weights' device.

    Args:
        module: the network whose parameters are averaged; tied ones once.
        decay: in (0, 1); about the last 1 / (1 - decay) steps count.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.parameters = dict(module.named_parameters())
        self.average = {name: parameter.detach().float().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of one more step in."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        weights = [self.parameters[name].detach().float() for name in self.average]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - decay)

    @contextlib.contextmanager
    def in_place(self):
        """Within this block the network has the averaged weights; afterwards, to the bit, its own again."""
        own = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self._fill(self.average)
        try:
            yield
        finally:
            self._fill(own)

    @torch.no_grad()
    def _fill(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def state(self) -> dict:
        """What a resume needs, in tensors and plain types."""
        return {"updates": self.updates, "average": self.average}

    def restore(self, state: dict) -> None:
        """Go on from a saved ``state``.

        Raises:
            UserError: it belongs to another network.
        """
        if {name: value.shape for name, value in state["average"].items()} != {
            name: value.shape for name, value in self.average.items()
        }:
            raise UserError("the averaged weights in this checkpoint do not fit the network: use another checkpoint")
        self.updates = state["updates"]
        for name, value in state["average"].items():
            self.average[name].copy_(value)
