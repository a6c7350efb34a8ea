"""The Hugging Face hub: is it there, what does its cache hold, and models that come from it or go to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from ..errors import UserError

Loaded = TypeVar("Loaded")
REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "README.md")
LOCAL = "give a checkpoint file, a run directory, or a folder that save_pretrained wrote"


def from_cache_or_hub(load: Callable[..., Loaded], what: str, advice: str) -> Loaded:
    """What ``load(local_files_only=True)`` finds in the cache of the hub, or else ``load()`` from the hub, if that can
    be reached.

    The cache is asked first and used as it is: left alone, the libraries ask the hub for news of what they hold, and
    without a network wait for it.
    """
    with contextlib.suppress(OSError, ValueError):
        return load(local_files_only=True)
    require_hub(what, advice)
    return load()


def require_hub(what: str, advice: str, timeout: float = 4.0) -> None:
    """Fail within ``timeout`` seconds when the hub cannot be reached; left alone the libraries retry for 23 s.

    Files already in the local cache still load: set HF_HUB_OFFLINE=1.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return
    endpoint = _endpoint()
    answer: list[str] = []
    # in a thread, because a name lookup that hangs knows no timeout
    probe = threading.Thread(target=lambda: answer.append(_knock(endpoint, timeout)), daemon=True)
    probe.start()
    probe.join(timeout)
    problem = answer[0] if answer else f"no answer within {timeout:g} s"
    if problem:
        raise UserError(f"cannot reach {endpoint} for {what} ({problem}); {advice}")


def is_repo(name) -> bool:
    """Whether a name can only be that of a repository of the hub: ``owner/name``, and no path from where the user
    stands.
    """
    if not isinstance(name, str) or not REPO.fullmatch(name) or name.endswith(".pt"):
        return False
    return not Path(name).exists() and not Path(name.split("/")[0]).is_dir()


def local_copy(name):
    """A checkpoint's name as it is, or for a repository of the hub the folder with its files, from the cache (which is
    used as it is) or else from the hub.

    Raises:
        UserError: the hub cannot be reached, or does not give it.
    """
    if not is_repo(name):
        return name

    def load(local_files_only: bool = False) -> Path:
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(
                name, allow_patterns=list(MODEL_FILES), local_files_only=local_files_only, endpoint=_endpoint()
            )
        )
        if local_files_only and not all((folder / file).is_file() for file in MODEL_FILES[:-1]):
            raise FileNotFoundError  # a download that was interrupted
        return folder

    return _given(load, name)


def settings_of_repo(name: str) -> dict:
    """The config.json of a repository, from the cache or else from the hub; raises as ``local_copy`` does."""

    def load(local_files_only: bool = False) -> dict:
        from huggingface_hub import hf_hub_download

        path = hf_hub_download(name, "config.json", local_files_only=local_files_only, endpoint=_endpoint())
        return json.loads(Path(path).read_bytes())

    return _given(load, name)


def _given(load: Callable[..., Loaded], name: str) -> Loaded:
    """``from_cache_or_hub`` of a model, with every refusal as one line."""
    try:
        return from_cache_or_hub(partial(_without_bars, load), f"the model {name}", LOCAL)
    except UserError:
        raise
    except Exception as error:  # the library lets errors of several network libraries through
        raise UserError(f"{name} is no path here, and the hub does not give it ({_reason(error)}); {LOCAL}") from None


def _without_bars(load: Callable[..., Loaded], **where) -> Loaded:
    """``load(**where)`` without the library's own progress bars where nobody sees them."""
    import sys

    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled() or (sys.stderr is not None and sys.stderr.isatty()):
        return load(**where)
    disable_progress_bars()
    try:
        return load(**where)
    finally:
        enable_progress_bars()


def check_repo(name) -> None:
    """Refuse what cannot be the name of a repository of the hub."""
    if not isinstance(name, str) or not REPO.fullmatch(name):
        raise UserError(f"the repository is {name!r}: expected owner/name, such as me/my-model")


def push_folder(folder: Path, repo: str, private: bool | None, message: str) -> str:
    """Send the files of a folder to a repository of the hub in one commit; its address.

    Raises:
        UserError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=_endpoint())
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        _without_bars(partial(api.upload_folder, repo_id=repo, folder_path=folder, commit_message=message))
    except Exception as error:  # the library lets errors of several network libraries through
        raise UserError(
            f"the hub does not take {repo} ({_reason(error)}); log in with a token that may write (hf auth login), or"
            " choose another name"
        ) from None
    return str(address)


def _endpoint() -> str:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return endpoint.rstrip("/") if "//" in endpoint.rstrip("/") else endpoint


def _reason(error: Exception) -> str:
    """What an error of the hub's library says, short."""
    text = " ".join(str(error).split()).split(" for url")[0]
    return f"{type(error).__name__}: {text[:160]}"


def _knock(endpoint: str, timeout: float) -> str:
    """Empty when the server answers at all, else the reason."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        return ""  # it answered
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return ""
