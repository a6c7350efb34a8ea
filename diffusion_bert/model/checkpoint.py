"""One-file checkpoints: a model with all that belongs to it.

A .pt file holds everything a model needs (weights, architecture, tokenizer, informativeness table, settings, metrics,
versions), so it evaluates and generates wherever it is copied. Only tensors and plain types go in and only these are
ever read: ``weights_only=True`` always.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import torch

from ..config.run_config import RunConfig
from ..data.skills import Skills
from ..data.tokenizer import TextTokenizer
from ..diffusion.schedule import NoiseSchedule
from ..errors import UserError
from ..machine.storage import to_plain, versions, weights_digest, write_atomically
from .diffusion_model import DiffusionModel, assemble
from .encoders import config_from
from .payload import FORMAT, FORMAT_VERSION, read_payload


def save_checkpoint(path: Path, model: DiffusionModel, training: dict | None = None) -> None:
    """Write one self-contained file; ``training`` adds what a resume needs. An interrupted or failed write leaves the
    old file as it was.
    """
    payload = payload_of(model)
    if training is not None:
        payload["training"] = to_plain(training)
    write_atomically(path, lambda file: torch.save(payload, file))


def payload_of(model: DiffusionModel) -> dict:
    """All that belongs to a model, as tensors and plain types: what ``restore`` makes it of."""
    # tied weights share one tensor and are stored once
    weights = model.denoiser.state_dict()
    return to_plain(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "saved": datetime.now(UTC).isoformat(timespec="seconds"),
            "architecture": json.loads(model.denoiser.bert_config.to_json_string(use_diff=False)),
            "tokenizer": model.tokenizer.json,
            "informativeness": None if model.schedule.informativeness is None else model.schedule.informativeness.cpu(),
            "token_counts": model.token_counts,
            "lexicon": model.lexicon,
            "config": model.config.to_flat(),
            "metrics": model.metrics,
            "parent": model.parent,
            "knows_pairs": model.knows_pairs,
            "skills": model.skills.plain(),
            "versions": versions(),
            "weights": weights,
            "weights_sha256": weights_digest(weights),
        }
    )


def restore(payload: dict, origin: str = "checkpoint") -> DiffusionModel:
    """The model of a payload, on the CPU."""
    config = RunConfig.from_flat(payload["config"], origin)
    tokenizer = TextTokenizer(payload["tokenizer"], origin)
    denoiser = _denoiser(config, payload, tokenizer, origin)
    try:
        denoiser.load_state_dict(payload["weights"])
    except RuntimeError as error:
        raise UserError(
            f"{origin}: weights do not fit the architecture ({str(error).splitlines()[-1].strip()[:160]})"
        ) from None
    table = payload["informativeness"]
    vocabulary, counts = (denoiser.bert_config.vocab_size,), payload["token_counts"]
    if table is not None and (table.shape != vocabulary or not bool((table.abs() <= 1).all())):
        raise UserError(
            f"{origin} is damaged: its informativeness table does not fit the vocabulary; use another checkpoint"
        )
    if counts.dtype != torch.int64 or counts.shape not in ((0,), vocabulary):
        raise UserError(f"{origin} is damaged: its word counts do not fit the vocabulary; use another checkpoint")
    lexicon = payload.get("lexicon", torch.zeros(0, dtype=torch.int32))  # older files have none
    if not is_lexicon(lexicon, tokenizer):
        raise UserError(f"{origin} is damaged: its words cannot be read; use another checkpoint")
    schedule = NoiseSchedule(config.diffusion.schedule, config.diffusion.word_freq_lambda, table)
    try:
        skills = Skills.from_plain(config.data.task_name, payload.get("skills"))
    except (ValueError, TypeError):
        raise UserError(f"{origin} is damaged: its table of prompts cannot be read; use another checkpoint") from None
    return DiffusionModel(
        denoiser.eval(),
        tokenizer,
        schedule,
        config,
        payload["token_counts"],
        payload.get("metrics", {}),
        payload.get("parent"),
        payload.get("knows_pairs", True),
        skills,
        lexicon,
        payload["weights_sha256"],
    )


def _denoiser(config: RunConfig, payload: dict, tokenizer: TextTokenizer, origin: str):
    """The denoiser of a payload, still without its weights; refused where no such network can be built."""
    try:
        architecture = config_from(payload["architecture"])
        # a layer has weights of its own; numbers that are too large otherwise find no memory
        if architecture.num_hidden_layers > len(payload["weights"]):
            raise ValueError(f"{architecture.num_hidden_layers:,} layers, more than it has weights")
        return assemble(config, architecture, tokenizer)
    except UserError:
        raise
    except Exception as error:  # numbers of the wrong kind surface as errors of several libraries
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{origin} is damaged: its architecture cannot be built ({reason}); use another checkpoint"
        ) from None


def is_lexicon(lexicon, tokenizer: TextTokenizer) -> bool:
    """Whether this is a flat array of ids of the vocabulary (data/lexicon.py)."""
    if not isinstance(lexicon, torch.Tensor) or lexicon.dtype != torch.int32 or lexicon.ndim != 1:
        return False
    return not len(lexicon) or (int(lexicon.min()) >= 0 and int(lexicon.max()) < tokenizer.vocab_size)


def load_checkpoint(path: str | Path) -> DiffusionModel:
    """The model in a checkpoint file, on the CPU, in evaluation mode."""
    return restore(read_payload(path), str(path))
