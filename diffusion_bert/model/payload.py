"""The checked contents of a checkpoint file: only tensors and plain types, whole, and of this format."""

from __future__ import annotations

import struct
import warnings
import zipfile
from pathlib import Path

import torch

from ..config.paths import checkpoint_file
from ..errors import UserError
from ..machine.hub import local_copy
from ..machine.storage import weights_digest
from .folder import read_folder

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
# what older ones lack
LATER_PARTS = {"metrics": dict, "parent": (str, type(None)), "knows_pairs": bool, "skills": (list, type(None))}
TRAINING_PARTS = {"state": dict, "optimizer": dict, "rng": dict, "data_fingerprint": str}

# A broken zip archive surfaces as any of these.
UNREADABLE = (
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
)


def read_payload(path: str | Path) -> dict:
    """The checked contents of a checkpoint: a file, a run directory, a folder as the hub has it, or a repository there.

    Raises:
        UserError: missing, not one of ours, damaged, of a newer format, or holding anything but tensors and plain data.
    """
    path = checkpoint_file(local_copy(path))
    payload = read_folder(path) if path.is_dir() else _unpickled(path)
    check_payload(payload, path)
    return payload


def _unpickled(path: Path):
    """What is in a file that torch wrote, whatever it is."""
    import pickle

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
    except UNREADABLE:
        raise UserError(
            f"{path} cannot be read: not a checkpoint, or a damaged or incomplete one; copy it again or use another"
        ) from None
    return payload


def check_payload(payload, path: Path) -> None:
    """Refuse what is no whole checkpoint, or one of a newer format."""
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
    kinds = PARTS | {key: kind for key, kind in LATER_PARTS.items() if key in payload}
    wrong = [key for key, kind in kinds.items() if not isinstance(payload[key], kind)]
    if wrong or not all(isinstance(tensor, torch.Tensor) for tensor in payload["weights"].values()):
        raise UserError(
            f"{path} is damaged: {wrong[0] if wrong else 'weights'} of the wrong type; use another checkpoint"
        )
    if weights_digest(payload["weights"]) != payload["weights_sha256"]:
        raise UserError(f"{path} is damaged: its weights do not match their checksum; copy it again or use another")


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
