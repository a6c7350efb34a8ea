"""A model written as a folder to pass on, or sent to the hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..machine.hub import check_repo, push_folder, require_hub
from ..machine.storage import written_whole
from .checkpoint import payload_of
from .export import special_tokens
from .folder import write_folder
from .model_card import data_name, model_card
from .sharing import for_others


def save_folder(model, folder: str | Path, data: str | None = None) -> None:
    """Write a ``DiffusionModel`` as a folder (folder.py), wholly or not at all; its settings name no path of this
    machine, all else is kept to the last bit. ``data`` is what the card calls the training data.

    Raises:
        UserError: the folder is not empty or cannot be written.
    """
    with written_whole(Path(folder)) as draft:
        _write(model, draft, data)


def push(model, repo: str, private: bool | None = None, message: str = "DiffusionBERT model") -> str:
    """Send the folder of a ``DiffusionModel`` to a repository of the hub, which is made if need be; its address.

    Raises:
        UserError: no such name, no network, or the hub refuses.
    """
    check_repo(repo)
    require_hub(f"sending {repo}", "save_pretrained writes the same folder here")
    with tempfile.TemporaryDirectory() as draft:
        _write(model, Path(draft), None, repo)
        return push_folder(Path(draft), repo, private, message)


def _write(model, folder: Path, data: str | None, repo: str | None = None) -> None:
    card_data = data or data_name(model)
    model = for_others(model)
    write_folder(payload_of(model), special_tokens(model.tokenizer), model_card(model, card_data, repo), folder)
