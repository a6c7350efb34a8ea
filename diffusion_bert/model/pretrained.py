"""A pretrained BERT, RoBERTa, DistilBERT or ModernBERT from a directory or the hub: its tokenizer, architecture and
weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ..config.schema import BUILT_IN_SIZES
from ..data.tokenizer import TextTokenizer
from ..errors import UserError
from ..machine.hub import from_cache_or_hub
from .encoders import FAMILIES

Loaded = TypeVar("Loaded")
# The denoiser counts source and target from 0 each, and without a source the sequence is ``[CLS] [SEP] text [SEP]``:
# positions 0, 1 | 0, 1, 2 ... A reader such as transformers counts from 0 without a break. With its first two rows
# repeated in front, a position table serves it: rows 0 and 1 are [CLS] and [SEP], row 2 + j is place j of the text.
OFFSET = 2  # places of an empty source, [CLS] and [SEP]
CONFIG_KEY = "diffusion_bert_position_offset"  # in the config.json of such a model
POSITIONS = "bert.embeddings.position_embeddings.weight"


def load_pretrained(name: str, weights: bool = True) -> tuple[TextTokenizer, object, dict[str, Tensor] | None]:
    """Tokenizer, configuration and (if wanted) masked-LM weights of an encoder from a local directory or the hub.

    One without a masked-LM head gets a fresh one, tied to its word embeddings.
    """
    expected = f"give a BERT directory, a hub id, or a built-in size ({', '.join(BUILT_IN_SIZES)})"
    return local_or_hub(
        name,
        partial(_load, name, weights),
        what=f"the model '{name}'",
        advice=f"give a local BERT directory, or a built-in size: {', '.join(BUILT_IN_SIZES)}",
        no_folder=f"model_name_or_path is '{name}': no such BERT directory (config.json is missing); give a directory,"
        " a hub id, tiny, mini or small",
        unreadable=lambda reason: f"cannot load '{name}': {reason}; {expected}",
    )


def local_or_hub(
    name: str, load: Callable[..., Loaded], what: str, advice: str, no_folder: str, unreadable: Callable[[str], str]
) -> Loaded:
    """What ``load()`` reads from the local directory ``name``, or from the cache of the hub, or from the hub.

    ``what`` and ``advice`` are for the message when the hub cannot be reached, ``no_folder`` for a directory that is
    not there, and ``unreadable`` makes the message from the reason why the files could not be read.

    Raises:
        UserError: one of these.
    """
    is_local = Path(name).is_dir() or name.startswith((".", "/", "~")) or name.count("/") > 1
    if is_local and not (Path(name) / "config.json").is_file():
        raise UserError(no_folder)
    with quiet_transformers():
        try:
            return load() if is_local else from_cache_or_hub(load, what, advice)
        except UserError:
            raise
        except Exception as error:  # broken files surface as errors of several libraries
            lines = str(error).strip().splitlines()
            raise UserError(unreadable(lines[0][:160] if lines else type(error).__name__)) from None


def _load(name: str, weights: bool, **where) -> tuple[TextTokenizer, object, dict[str, Tensor] | None]:
    """``load_pretrained`` with options of the library that say where to look."""
    import transformers

    bert_config = transformers.AutoConfig.from_pretrained(name, **where)
    if bert_config.model_type not in FAMILIES:
        raise UserError(
            f"{name} is a {bert_config.model_type} model: expected a BERT ({', '.join(FAMILIES)}), such as"
            " bert-base-uncased"
        )
    family = FAMILIES[bert_config.model_type]
    tokenizer = TextTokenizer.from_pretrained(name, **where)
    if not weights:
        return tokenizer, bert_config, _own_positions(bert_config, None)
    model, info = family.model_class.from_pretrained(
        name, config=bert_config, dtype=torch.float32, output_loading_info=True, **where
    )
    # the library would fill them with random numbers
    if missing := sorted(key for key in info["missing_keys"] if key.startswith(f"{family.encoder}.")):
        raise UserError(
            f"{name} lacks weights ({missing[0]} and {len(missing) - 1} more): not a whole BERT; choose another or"
            " --from_scratch true"
        )
    return tokenizer, bert_config, _own_positions(bert_config, model.state_dict())


def _own_positions(bert_config, weights: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    """What export.py did to the position table for other readers, undone: the weights are then those of the checkpoint
    it exported.
    """
    if bert_config.to_dict().get(CONFIG_KEY) == OFFSET:
        delattr(bert_config, CONFIG_KEY)
        bert_config.max_position_embeddings -= OFFSET
        if weights is not None:
            weights[POSITIONS] = restarting_positions(weights[POSITIONS])
    return weights


@contextlib.contextmanager
def quiet_transformers():
    """Without the library's loading bars and its warnings about a decoder flag and a fresh head, both of which are
    meant here.
    """
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def running_positions(table: Tensor) -> Tensor:
    """A position table for positions that run on: [P, D] -> [P + 2, D]."""
    return torch.cat([table[:OFFSET], table])


def restarting_positions(table: Tensor) -> Tensor:
    """The inverse of ``running_positions``: [P + 2, D] -> [P, D]."""
    return table[OFFSET:].clone()
