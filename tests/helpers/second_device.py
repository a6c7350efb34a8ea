"""A second device where there is none: tensors that hold CPU data but say they are elsewhere. Mixing the two raises,
and what the host reads is counted.

Only forward passes are covered: no autograd, no autocast, no pinned memory. The label is torch's "meta" device,
on which nothing else of a test lies.
"""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

ELSEWHERE, HERE = torch.device("meta"), torch.device("cpu")
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default", "masked_select")  # the host needs the values


class Elsewhere(torch.Tensor):
    """A tensor of the second device; ``inner`` holds its numbers."""

    reads: list[str] = []  # by operation, of all such tensors

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, device=ELSEWHERE
        )
        made.inner = inner
        return made

    def tolist(self):
        Elsewhere.reads.append("tolist")
        return self.inner.tolist()

    def __repr__(self):
        return f"Elsewhere({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


def inner_of(value):
    return value.inner if isinstance(value, Elsewhere) else value


def wrapped(value):
    return Elsewhere(value) if isinstance(value, torch.Tensor) and not isinstance(value, Elsewhere) else value


def is_elsewhere(device) -> bool:
    return device is not None and torch.device(device).type == ELSEWHERE.type


def dispatch(func, args, kwargs):
    """One operation, as a machine with two devices would do it."""
    name, kwargs = str(func), dict(kwargs)
    if name.startswith("aten._to_copy"):
        return moved(func, args[0], kwargs)
    if name.startswith("aten.copy_"):
        func(inner_of(args[0]), inner_of(args[1]), **kwargs)
        if isinstance(args[1], Elsewhere) and not isinstance(args[0], Elsewhere):
            Elsewhere.reads.append(name)
        return args[0]
    if kwargs.get("device") is not None:  # a new tensor
        new_elsewhere = is_elsewhere(kwargs["device"])
        kwargs["device"] = HERE if new_elsewhere else kwargs["device"]
        made = func(*tree_map(inner_of, args), **tree_map(inner_of, kwargs))
        return tree_map(wrapped, made) if new_elsewhere else made
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    there = [value for value in tensors if isinstance(value, Elsewhere)]
    here = [value for value in tensors if not isinstance(value, Elsewhere) and value.dim() > 0]
    if there and here:
        shapes = [tuple(value.shape) for value in there], [tuple(value.shape) for value in here]
        raise RuntimeError(f"{name} mixes devices: {shapes[0]} elsewhere, {shapes[1]} here")
    if there and (any(word in name for word in WAITS) or indexes_by_mask(name, args)):
        Elsewhere.reads.append(name)
    result = func(*tree_map(inner_of, args), **tree_map(inner_of, kwargs))
    if not there:
        return result
    in_place = func._schema.is_mutable and name.split(".")[1].endswith("_")
    return args[0] if in_place else tree_map(wrapped, result)


def moved(func, source, kwargs):
    """A copy in another type or on another device; one to the host is a read."""
    device = kwargs.pop("device", None)
    kept = {name: value for name, value in kwargs.items() if name not in ("pin_memory", "non_blocking")}
    made = func(inner_of(source), **kept)
    stays = device is None and isinstance(source, Elsewhere)
    if isinstance(source, Elsewhere) and not stays and not is_elsewhere(device):
        Elsewhere.reads.append(str(func))
    return Elsewhere(made) if stays or is_elsewhere(device) else made


def indexes_by_mask(name: str, args) -> bool:
    """Whether an index is a mask, whose number of True the host has to know."""
    if not name.startswith(("aten.index.", "aten.index_put")):
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])


class TwoDevices(TorchDispatchMode):
    """Every operation goes through ``dispatch``, also those that only make tensors."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


@contextlib.contextmanager
def second_device(monkeypatch, model):
    """Within this block ``model`` is on the second device; yields the list of what the host read from it."""
    make, autocast = torch.tensor, torch.autocast

    def tensor(*args, device=None, **kwargs):
        made = make(*args, **kwargs)
        return Elsewhere(inner_of(made)) if is_elsewhere(device) else made

    def cast(device_type, *args, **kwargs):
        return contextlib.nullcontext() if device_type == ELSEWHERE.type else autocast(device_type, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "tensor", tensor)
        patch.setattr(torch, "autocast", cast)
        for part in model.denoiser.modules():
            for table in (part._parameters, part._buffers):
                for key, value in table.items():
                    if value is not None:
                        table[key] = Elsewhere(value.data)
        if model.schedule.informativeness is not None:
            model.schedule.informativeness = Elsewhere(model.schedule.informativeness)
        Elsewhere.reads.clear()
        with torch.no_grad(), TwoDevices():
            yield Elsewhere.reads
