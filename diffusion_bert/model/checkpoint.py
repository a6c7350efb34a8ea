"""One-file checkpoints: a model with all that belongs to it.

A .pt file holds everything a model needs (weights, architecture, tokenizer, informativeness table, settings, metrics,
versions), so it evaluates and generates wherever it is copied. Only tensors and plain types go in and only these are
ever read: ``weights_only=True`` always.
"""

from __future__ import annotations

import json
import struct
import warnings
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import torch

from ..config.paths import checkpoint_file
from ..config.schema import RunConfig
from ..data.skills import Skills
from ..data.tokenizer import TextTokenizer
from ..diffusion.schedule import NoiseSchedule
from ..errors import UserError
from ..machine.storage import to_plain, versions, weights_digest, write_atomically
from .diffusion_model import DiffusionModel, assemble
from .encoders import config_from

FORMAT, FORMAT_VERSION = "diffusion-bert", 1
# what a checkpoint cannot do without, and the type of each
PARTS = {
    "architecture": dict,
    "tokenizer": str,
    "informativeness": (torch.Tensor, type(None)),
    "token_counts": torch.Tensor,
    "config": dict,
    "weights": dict,
    "weights_sha256": str,
}
TRAINING_PARTS = {"state": dict, "optimizer": dict, "rng": dict, "data_fingerprint": str}


def save_checkpoint(path: Path, model: DiffusionModel, training: dict | None = None) -> None:
    """Write one self-contained file; ``training`` adds what a resume needs. An interrupted or failed write leaves the
    old file as it was.
    """
    # tied weights share one tensor and are stored once
    weights = model.denoiser.state_dict()
    payload = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "saved": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "architecture": json.loads(model.denoiser.bert_config.to_json_string(use_diff=False)),
        "tokenizer": model.tokenizer.json,
        "informativeness": None if model.schedule.informativeness is None else model.schedule.informativeness.cpu(),
        "token_counts": model.token_counts,
        "config": model.config.to_flat(),
        "metrics": model.metrics,
        "parent": model.parent,
        "knows_pairs": model.knows_pairs,
        "skills": model.skills.plain(),
        "versions": versions(),
        "weights": weights,
        "weights_sha256": weights_digest(weights),
    }
    if training is not None:
        payload["training"] = training
    write_atomically(path, lambda file: torch.save(to_plain(payload), file))


def read_payload(path: str | Path) -> dict:
    """The checked contents of a checkpoint file.

    Raises:
        UserError: missing, not one of ours, damaged, of a newer format, or holding anything but tensors and plain data.
    """
    import pickle

    path = checkpoint_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch comments on foreign pickles
            payload = torch.load(path, map_location="cpu", weights_only=True)
        # torch does not check the archive's own checksums
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is refused: it is no plain data (not a DiffusionBERT checkpoint, or one that would run code);"
            " nothing in it was run"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or 'unreadable'}; check its permissions") from None
    except (
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
        AttributeError,
        IndexError,
        TypeError,
        AssertionError,
        MemoryError,
        struct.error,
        zipfile.BadZipFile,
    ):
        # broken zip archives surface as any of these
        raise UserError(
            f"{path} cannot be read: not a checkpoint, or a damaged or incomplete one; copy it again or use another"
        ) from None
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise UserError(
            f"{path} is no DiffusionBERT checkpoint: expected a file written by run_conditional_training.py"
        )
    if payload.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has checkpoint format {payload.get('format_version')}, this version reads {FORMAT_VERSION}: update"
            " DiffusionBERT"
        )
    if missing := [key for key in PARTS if key not in payload]:
        raise UserError(f"{path} is incomplete: {', '.join(missing)} missing; use another checkpoint")
    wrong = [key for key, kind in PARTS.items() if not isinstance(payload[key], kind)]
    if wrong or not all(isinstance(tensor, torch.Tensor) for tensor in payload["weights"].values()):
        raise UserError(
            f"{path} is damaged: {wrong[0] if wrong else 'weights'} of the wrong type; use another checkpoint"
        )
    if weights_digest(payload["weights"]) != payload["weights_sha256"]:
        raise UserError(f"{path} is damaged: its weights do not match their checksum; copy it again or use another")
    return payload


def restore(payload: dict, origin: str = "checkpoint") -> DiffusionModel:
    """The model of a payload, on the CPU."""
    config = RunConfig.from_flat(payload["config"], origin)
    tokenizer = TextTokenizer(payload["tokenizer"], origin)
    denoiser = assemble(config, config_from(payload["architecture"]), tokenizer)
    try:
        denoiser.load_state_dict(payload["weights"])
    except RuntimeError as error:
        raise UserError(
            f"{origin}: weights do not fit the architecture ({str(error).splitlines()[-1].strip()[:160]})"
        ) from None
    table = payload["informativeness"]
    if table is not None and (table.shape != (denoiser.bert_config.vocab_size,) or not bool((table.abs() <= 1).all())):
        raise UserError(
            f"{origin} is damaged: its informativeness table does not fit the vocabulary; use another checkpoint"
        )
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
        payload["weights_sha256"],
    )


def training_part(payload: dict, path: Path) -> dict:
    """What a resume needs, from the payload of a last.pt.

    Raises:
        UserError: there is none, or not all of it.
    """
    if "training" not in payload:
        raise UserError(f"{path} holds no training state: --resume needs the last.pt of an interrupted run")
    training = payload["training"]
    if not isinstance(training, dict) or not all(
        isinstance(training.get(name), kind) for name, kind in TRAINING_PARTS.items()
    ):
        raise UserError(
            f"{path} holds a damaged training state: use --checkpoint without --resume, which trains on from its"
            " weights"
        )
    return training


def load_checkpoint(path: str | Path) -> DiffusionModel:
    """The model in a checkpoint file, on the CPU, in evaluation mode."""
    return restore(read_payload(path), str(path))
