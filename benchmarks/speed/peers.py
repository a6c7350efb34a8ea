"""The losses of other projects, called in a checkout of their code that the user gives by path. Nothing of theirs is
copied here.

Only the loss is wanted, so what their files import besides (loggers, trainers, other architectures) is replaced by
empty stand-ins while they are read.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import types
from pathlib import Path

import torch
from torch import nn

from diffusion_bert.errors import UserError


class _Anything(type):
    """A class any of whose attributes is a class again: base classes and decorators of a file that is only read."""

    def __getattr__(cls, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing


class Nothing(metaclass=_Anything):
    """Stands for whatever is imported and not used."""

    def __new__(cls, *args, **_):
        return args[0] if len(args) == 1 and callable(args[0]) else super().__new__(cls)

    def __init__(self, *_, **__):
        pass


def _stand_in(name: str, **members) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__getattr__ = lambda attribute: getattr(Nothing, attribute)
    module.__path__ = []
    for key, value in members.items():
        setattr(module, key, value)
    return module


@contextlib.contextmanager
def _reading(folder: Path, stand_ins: dict[str, types.ModuleType]):
    """Within this block imports look into ``folder`` first; afterwards nothing of it is left behind in
    ``sys.modules``.
    """
    before, path = dict(sys.modules), list(sys.path)
    sys.modules.update(stand_ins)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - set(before):
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)) or name in stand_ins:
                del sys.modules[name]
        sys.modules.update({name: before[name] for name in stand_ins if name in before})


def _need(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise UserError(f"{folder} has no {name}: expected a checkout of the project")
    return folder.resolve()


def original_loss(folder: Path, frequency: torch.Tensor, tokenizer, num_steps: int = 64):
    """``compute_kl_reverse_process`` of Hzfinfdu/Diffusion-BERT, called as its DDP_main.py does."""
    import transformers

    folder = _need(folder, "diffusion_word_freq.py")
    # imported there, not used by the loss
    missing = {} if hasattr(transformers, "top_k_top_p_filtering") else {"top_k_top_p_filtering": None}
    for name, value in missing.items():
        setattr(transformers, name, value)
    try:
        with _reading(folder, {"fastNLP": _stand_in("fastNLP")}):
            theirs, samples = importlib.import_module("diffusion_word_freq"), importlib.import_module("sample")
    finally:
        for name in missing:
            delattr(transformers, name)
    with contextlib.redirect_stdout(None):
        schedule = theirs.create_discrete_diffusion_schedule("mutual", num_steps=num_steps)
    names = types.SimpleNamespace(mask_token_id=tokenizer.mask_id)
    # its constructor makes a V x V table (3.7 GB here) that this loss never reads
    diffusion = _without_table(theirs, len(frequency), schedule, names, samples.Categorical(), frequency.device)

    def loss(model, batch, _mask_id) -> torch.Tensor:
        warp = frequency[batch.input_ids]
        values = theirs.compute_kl_reverse_process(
            batch.input_ids,
            diffusion.sample_t(),
            denoise_fn=lambda targets, timestep, attention_mask: model(targets, attention_mask=attention_mask).logits,
            diffusion=diffusion,
            target_mask=torch.ones_like(batch.input_ids),
            hybrid_lambda=3e-4,
            predict_x0=True,
            word_freq_logits=warp - warp.mean(-1, keepdim=True),
            device=batch.input_ids.device,
        )
        return values["loss"].sum() / len(batch)

    return loss


def _without_table(theirs, size: int, schedule, names, sampler, device):
    class Lean(theirs.MaskDiffusion):
        """Theirs, built as if the vocabulary had one word, which is then told its size."""

    lean = Lean(1, schedule, types.SimpleNamespace(mask_token_id=0), True, sampler, None, 0.3, device)
    lean.dim, lean.tokenizer = size, names
    return lean


def mdlm_checkout_loss(folder: Path, tokenizer):
    """The loss of kuleshov-group/mdlm (``Diffusion._loss``, SUBS, continuous time, log-linear) or of ZHZisZZ/dllm
    (``MDLMTrainer``).
    """
    if (folder / "dllm").is_dir():
        return _dllm_loss(folder, tokenizer)
    folder = _need(folder, "diffusion.py")
    stand_ins = {
        name: _stand_in(name)
        for name in ("hydra", "hydra.utils", "torchmetrics", "dataloader", "models", "utils", "omegaconf")
    }
    stand_ins["lightning"] = _stand_in("lightning", LightningModule=nn.Module)
    stand_ins["utils"].print_nans = lambda *_: None
    with _reading(folder, stand_ins):
        theirs, noise = importlib.import_module("diffusion"), importlib.import_module("noise_schedule")
    module = theirs.Diffusion.__new__(theirs.Diffusion)
    nn.Module.__init__(module)
    backbone: dict = {}
    module.__dict__.update(
        config=types.SimpleNamespace(
            training=types.SimpleNamespace(sampling_eps=1e-3), backbone="bert", model=types.SimpleNamespace(length=0)
        ),
        mask_index=tokenizer.mask_id,
        parameterization="subs",
        T=0,
        antithetic_sampling=True,
        importance_sampling=False,
        change_of_variables=False,
        sampling_eps=1e-3,
        neg_infinity=-1000000.0,
        time_conditioning=False,
        subs_masking=False,
        vocab_size=tokenizer.vocab_size,
    )
    module.noise = noise.LogLinearNoise()
    module.backbone = lambda x, sigma: backbone["model"](x).logits
    module._maybe_sub_sample = lambda x_0, mask: (x_0, None, mask)

    def loss(model, batch, _mask_id) -> torch.Tensor:
        backbone["model"] = model
        return module._loss(batch.input_ids, batch.target_mask.float()).loss

    return loss


def _dllm_loss(folder: Path, tokenizer):
    folder = _need(folder, "dllm/core/trainers/mdlm.py")
    packages = {}
    for name in ("dllm", "dllm.core", "dllm.core.trainers"):
        packages[name] = types.ModuleType(name)
        packages[name].__path__ = [str(folder / name.replace(".", "/"))]
    for name in ("dllm.utils", "dllm.utils.configs", "dllm.utils.data", "dllm.core.trainers.utils"):
        packages[name] = _stand_in(name)
    with _reading(folder, packages):
        theirs = importlib.import_module("dllm.core.trainers.mdlm")
        scheduler = importlib.import_module("dllm.core.schedulers").LinearAlphaScheduler()
    trainer = types.SimpleNamespace(
        processing_class=types.SimpleNamespace(padding_side="right", mask_token_id=tokenizer.mask_id),
        time_epsilon=1e-3,
        scheduler=scheduler,
        loss_weight_type="scheduler",
        loss_norm_type="token",
        meter=types.SimpleNamespace(update=lambda **_: None),
        _preprocess_inputs=lambda inputs: inputs,
        _postprocess_outputs=lambda outputs: outputs,
    )
    trainer._compute_loss_weights = types.MethodType(
        inspect.getattr_static(theirs.MDLMTrainer, "_compute_loss_weights"), trainer
    )

    def loss(model, batch, _mask_id) -> torch.Tensor:
        inputs = {
            "input_ids": batch.input_ids,
            "labels": torch.where(batch.target_mask, batch.input_ids, -100),
            "attention_mask": batch.valid,
        }
        return theirs.MDLMTrainer.compute_loss(trainer, model, inputs)

    return loss
