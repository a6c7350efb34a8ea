"""The run directory and its one-file checkpoints.

A .pt file holds everything a model needs (weights, architecture, tokenizer, informativeness table, settings, metrics,
versions), so it evaluates and generates wherever it is copied. Only tensors and plain types go in and only these are
ever read: ``weights_only=True`` always.
"""

from __future__ import annotations

import json
import os
import re
import struct
import warnings
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import torch

from .config.paths import checkpoint_file
from .config.schema import RunConfig
from .config.tasks import task_names
from .data.skills import Skills
from .data.tokenizer import TextTokenizer
from .diffusion.schedule import NoiseSchedule
from .encoders import config_from
from .errors import UserError
from .machine.storage import to_plain, versions, weights_digest, write_atomically
from .model import DiffusionModel, assemble

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


def _joined(task_name: str, limit: int = 40) -> str:
    """The tasks of a run in a directory name: joined by +, those beyond ``limit`` characters only counted."""
    first, *others = task_names(task_name)
    for number, name in enumerate(others):
        if len(first) + len(name) + 1 > limit:
            return f"{first}+{len(others) - number}more"
        first += f"+{name}"
    return first


class RunDirectory:
    """One training run on disk. ``create`` numbers it; nothing is ever overwritten."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    best = property(lambda self: self.path / "best_model.pt")
    last = property(lambda self: self.path / "last.pt")
    metrics = property(lambda self: self.path / "metrics.jsonl")

    def epoch(self, number: int) -> Path:
        """The checkpoint kept of an epoch (--keep_checkpoints)."""
        return self.path / f"epoch_{number}.pt"

    def remove_epochs(self, until: int) -> None:
        """Remove the checkpoints of epochs up to and including ``until``."""
        for path in self.path.glob("epoch_*.pt"):
            number = path.stem.removeprefix("epoch_")
            if number.isdigit() and int(number) <= until:
                path.unlink(missing_ok=True)

    @classmethod
    def create(cls, config: RunConfig) -> RunDirectory:
        """runs/model_name_<model>_taskname_<task>_lr_<lr>_seed_<seed>_numsteps_<T>_wordfreqlambda_<lambda>_<NNN>/"""
        name = config.model.model_name_or_path
        # a local path gives its folder's name, a hub id itself
        name = Path(name).resolve().name if Path(name).is_dir() else name
        stem = (
            f"model_name_{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}_taskname_{_joined(config.data.task_name)}"
            f"_lr_{config.training.lr * config.training.lr_factor:g}"
            f"_seed_{config.training.seed}_numsteps_{config.diffusion.num_steps}_wordfreqlambda_{config.diffusion.word_freq_lambda:g}"
        )
        parent = Path(config.training.output_dir)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for number in range(1, 100_000):
                try:
                    (parent / f"{stem}_{number:03d}").mkdir()  # atomic: two runs started at once get different numbers
                except FileExistsError:
                    continue
                return cls(parent / f"{stem}_{number:03d}")
        except OSError as error:
            raise UserError(
                f"cannot make a run directory in {parent}: {error.strerror}; choose another --output_dir"
            ) from None
        raise UserError(f"{parent} holds 99,999 runs of this name: choose another --output_dir")

    def append_metrics(self, record: dict) -> None:
        """One line in metrics.jsonl, on the disk before any checkpoint that counts it."""
        try:
            with open(self.metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps(to_plain(record)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {self.metrics}: {error.strerror}; free some space and use continue_training.py --resume"
            ) from None

    def read_metrics(self) -> list[dict]:
        """All lines of metrics.jsonl; a last line cut off by a crash is dropped."""
        records = []
        if self.metrics.is_file():
            for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    records.append(json.loads(line))
                except ValueError:
                    break
        return records

    def cut_metrics(self, lines: int) -> int:
        """Keep the first ``lines`` records: those the checkpoint knows of. How many there are: fewer, when someone
        shortened the file.
        """
        records = self.read_metrics()[:lines]
        text = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(self.metrics, lambda file: file.write(text.encode()))
        return len(records)

    def write_json(self, name: str, values: dict) -> None:
        text = json.dumps(to_plain(values), indent=2) + "\n"
        write_atomically(self.path / name, lambda file: file.write(text.encode()))

    def write_config(self, config: RunConfig) -> None:
        import yaml

        text = yaml.safe_dump(config.to_flat(), sort_keys=False)
        write_atomically(self.path / "config.yaml", lambda file: file.write(text.encode()))
