"""One training by several processes, as ``torchrun`` starts them: who am I, sums over all, one voice for errors.

torchrun gives each process its number in RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR/PORT. Without them, or with one
process, everything here does nothing. Numbers that decide something (counts, signals, minutes) go over gloo from host
to host; only gradients use NCCL on a GPU.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from ..errors import UserError

# a process that dies is noticed at once, by its closed connection; one that is merely slow is waited for
PATIENCE = timedelta(hours=24)


def process_rank() -> int:
    """This process's number among those that torchrun started; 0 without torchrun. Free of torch."""
    return int(os.environ.get("RANK", 0)) if process_count() > 1 else 0


def process_count() -> int:
    """How many processes torchrun started together, on all nodes."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdigit() else 1


class Processes:
    """The processes of one training; on its own (``size`` 1) every method is the identity.

    Args:
        rank: number of this process, 0 is the one that writes and prints.
        size: number of processes on all nodes.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """The numbers of every process, in order of rank; all must give as many."""
        if self.size == 1:
            return [list(values)]
        import torch

        own = torch.tensor(values, dtype=torch.float64)
        everyone = [torch.empty_like(own) for _ in range(self.size)]
        with _peers_may_end():
            torch.distributed.all_gather(everyone, own)
        return [tensor.tolist() for tensor in everyone]

    def gather_objects(self, value: Any) -> list[Any]:
        """What every process gives (anything that can be pickled), in order of rank."""
        if self.size == 1:
            return [value]
        import torch

        everyone: list[Any] = [None] * self.size
        with _peers_may_end():
            torch.distributed.all_gather_object(everyone, value)
        return everyone

    def broadcast(self, value: Any = None) -> Any:
        """What process 0 gives (anything that can be pickled), in every process."""
        if self.size == 1:
            return value
        import torch

        box = [value]
        with _peers_may_end():
            torch.distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def on_main(self, work: Callable[[], Any]) -> Any:
        """The result of ``work``, done by process 0 alone, in every process."""
        return self.broadcast(work() if self.is_main else None)

    def sum_(self, tensor):
        """The sum of a tensor over all processes, in place, on whatever device it is."""
        if self.size > 1:
            import torch

            with _peers_may_end():
                torch.distributed.all_reduce(tensor)
        return tensor

    def broadcast_(self, tensors: Iterable) -> None:
        """Overwrite tensors with those of process 0."""
        if self.size > 1:
            import torch

            for tensor in tensors:
                with _peers_may_end():
                    torch.distributed.broadcast(tensor, src=0)


def flat_gradients(parameters: Iterable):
    """Make every gradient a view of one flat tensor of zeros, which is returned: one sum over processes is then one
    call.
    """
    import torch

    parameters = list(parameters)
    flat = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype, device=parameters[0].device)
    start = 0
    for parameter in parameters:
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return flat


def join(device: str = "auto") -> Processes:
    """Meet the other processes of this training; those that met before are returned again.

    Raises:
        UserError: --device names one GPU for all, or the others cannot be reached.
    """
    if process_count() == 1:
        return Processes()
    import torch

    if re.fullmatch(r"cuda:\d+", device):
        raise UserError(
            f"device is '{device}' with {process_count()} processes: expected cuda or auto, each process then takes its"
            " own GPU"
        )
    if not torch.distributed.is_initialized():
        on_gpu = device != "cpu" and torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        try:
            torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"cannot meet the other processes at {os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
                f" ({str(error).splitlines()[0][:120]}); start with torchrun, with the same --rdzv_endpoint on every"
                " node"
            ) from None
    return Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())


def own_device(name: str) -> str:
    """The --device of this process: with several processes ``auto`` and ``cuda`` mean the GPU of its LOCAL_RANK."""
    if process_count() == 1 or name not in ("auto", "cuda"):
        return name
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if name == "cuda" or torch.cuda.is_available() else "cpu"


def shutdown() -> None:
    """Leave the group of processes, after work that all of them ended."""
    distributed = sys.modules.get("torch.distributed")
    if process_count() > 1 and distributed and distributed.is_initialized():
        distributed.destroy_process_group()


def should_print() -> bool:
    """Whether this process prints an error: of those that fail together only the first one does (before they have met,
    number 0).
    """
    if process_count() == 1:
        return True
    distributed = sys.modules.get("torch.distributed")
    if not distributed or not distributed.is_initialized():
        return process_rank() == 0
    try:
        return distributed.distributed_c10d._get_default_store().add("diffusion_bert/errors", 1) == 1
    except RuntimeError:
        return process_rank() == 0  # the store is gone with the process that held it


@contextlib.contextmanager
def _peers_may_end():
    """A connection that breaks because another process has ended is no error of this one."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"another process of this training has ended; its message says why ({str(error).splitlines()[0][:100]})"
        ) from None
