"""The Hugging Face hub: is it there, what its cache holds, and the rows of its datasets (or of a local folder), through
``datasets``.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TypeVar

from ..errors import UserError

Loaded = TypeVar("Loaded")


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
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    answer: list[str] = []
    # in a thread, because a name lookup that hangs knows no timeout
    probe = threading.Thread(target=lambda: answer.append(_knock(endpoint, timeout)), daemon=True)
    probe.start()
    probe.join(timeout)
    problem = answer[0] if answer else f"no answer within {timeout:g} s"
    if problem:
        raise UserError(f"cannot reach {endpoint} for {what} ({problem}); {advice}")


def _knock(endpoint: str, timeout: float) -> str:
    """Empty when the server answers at all, else the reason."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=timeout).close()
    except urllib.error.HTTPError:
        return ""  # it answered
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return ""
