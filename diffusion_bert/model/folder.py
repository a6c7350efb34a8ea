"""A checkpoint as a folder, the form that goes to the hub: plain data only, and every file has a fixed name.

| file | holds |
|---|---|
| `config.json` | architecture, settings, skills, metrics, versions, the digest of the weights |
| `model.safetensors` | `denoiser.NAME` for every weight; `informativeness`, `token_counts` and `lexicon` |
| `tokenizer.json` | the tokenizer as it stands in a checkpoint file |
| `tokenizer_config.json` | what `AutoTokenizer` of transformers wants to know besides; not read here |
| `README.md` | the model card; not read here |

A folder may come from anybody. So nothing in it names a file to read or a place to write to, and one whose settings do
is refused.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..config.paths import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from ..config.run_config import RunConfig
from ..errors import UserError
from .sharing import paths_in

PREFIX = "denoiser."
TABLES = ("informativeness", "token_counts", "lexicon")
# what config.json holds; everything else in it is left unread
FIELDS = tuple(
    "format format_version saved architecture config metrics parent knows_pairs skills versions weights_sha256".split()
)
TIED = "tied_weights"  # in config.json: name of a weight -> name under which the same numbers are stored
ADVICE = "download or write it again"


def write_folder(payload: dict, special_tokens: dict[str, str], card: str, folder: Path) -> None:
    """Write a checkpoint's contents (``payload_of``) and its card into an empty folder."""
    from safetensors.torch import save_file

    stored, tied, first = {}, {}, {}
    for name, tensor in payload["weights"].items():
        place = (tensor.data_ptr(), tensor.shape, tensor.dtype)
        if tensor.numel() and first.setdefault(place, name) != name:
            tied[name] = first[place]  # safetensors stores every number once
        else:
            stored[PREFIX + name] = tensor.detach().cpu().contiguous()
    stored |= {name: payload[name].cpu().contiguous() for name in TABLES if payload[name] is not None}
    save_file(stored, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    settings = {"model_type": "diffusion_bert", **{name: payload[name] for name in FIELDS}, TIED: tied}
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", **special_tokens}
    texts = {
        CONFIG_FILE: json.dumps(settings, indent=2) + "\n",
        TOKENIZER_FILE: payload["tokenizer"],
        "tokenizer_config.json": json.dumps(tokenizer, indent=2) + "\n",
        "README.md": card,
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())


def read_folder(folder: Path) -> dict:
    """The contents of a checkpoint's folder, as ``payload_of`` made them; what ``check_payload`` checks is unchecked.

    Raises:
        UserError: a file is missing or damaged, this is the folder of another kind of model, or its settings name a
            path.
    """
    settings = _settings(folder / CONFIG_FILE)
    stored = _tensors(folder / WEIGHTS_FILE)
    tied = settings.get(TIED)
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items() if name.startswith(PREFIX)}
    if not isinstance(tied, dict) or not all(isinstance(name, str) and name in weights for name in tied.values()):
        raise UserError(f"{folder / CONFIG_FILE} is damaged: {TIED} names no stored weights; {ADVICE}")
    weights |= {name: weights[stored_name] for name, stored_name in tied.items()}
    payload = {name: settings[name] for name in FIELDS if name in settings}
    payload |= {name: stored[name] for name in TABLES if name in stored}
    payload.setdefault("informativeness", None)  # of a model whose schedule is plain
    return payload | {"weights": weights, "tokenizer": _text(folder / TOKENIZER_FILE)}


def _settings(path: Path) -> dict:
    """config.json as a table, with settings that are legal and name no path."""
    try:
        settings = json.loads(_text(path))
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged: it is not JSON; {ADVICE}") from None
    if not isinstance(settings, dict) or "format" not in settings:
        raise UserError(
            f"{path.parent} is the folder of another kind of model: expected one that DiffusionTextGenerator"
            ".save_pretrained wrote (a fill-mask export is none: give the checkpoint it was made of)"
        )
    if isinstance(settings.get("config"), dict):
        for name, value in paths_in(RunConfig.from_flat(settings["config"], str(path))).items():
            raise UserError(
                f"{path} is refused: its setting {name} names a path ({value}), as no model that was passed on may;"
                f" take {name} out of it"
            )
    return settings


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {ADVICE}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged: it is not UTF-8 text; {ADVICE}") from None


def _tensors(path: Path) -> dict:
    """All tensors of a safetensors file, in memory of their own: the file may change once they are read."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; {ADVICE}") from None
    except (SafetensorError, ValueError, KeyError, MemoryError):
        raise UserError(f"{path} is damaged or incomplete; {ADVICE}") from None
