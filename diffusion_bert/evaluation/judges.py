"""Judges from outside: pretrained models that have nothing to do with the one that is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch

from ..data.vocabulary import load_tokenizer
from ..errors import UserError
from ..model.pretrained import local_or_hub

LONGEST = 512  # word pieces of a text that a judge reads
BATCH = 64


class Judge(Protocol):
    """Gives one output per source some columns of the metrics."""

    column: str  # its main column, and its key in the settings of an evaluation
    name: str  # the model, and what else a reader must know to repeat it
    needs_references: bool  # whether it compares with the references

    def measured(self, sources: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]) -> dict:
        """The columns, each mean with its 95 % interval as ``<name>_interval``."""


class PretrainedJudge:
    """What the judges have in common: a pretrained model from a local directory or the hub, with its tokenizer.

    Raises:
        UserError: the model cannot be had.
    """

    auto_class = "AutoModel"  # the class of transformers that loads it
    flag, what = "", ""  # the setting that named it, and what it is, for messages
    spare: tuple[str, ...] = ("pooler",)  # parts of the names of weights that may be missing: they are not used

    def __init__(self, name: str, device: torch.device | str = "cpu"):
        self.tokenizer, self.model = load_judge(name, self.auto_class, self.flag, self.what, self.spare)
        self.model.to(device)
        self.device, self.name = torch.device(device), name

    def encoded(self, texts: list[str], **more):
        """What the tokenizer makes of some texts, padded to the longest and cut to what the model reads; ``more`` goes
        to the tokenizer.
        """
        longest = longest_of(self.model)
        return self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt", **more)


def batches_of(texts: Iterable[str]) -> Iterator[list[str]]:
    """Different texts in batches of like length, which need little padding."""
    ordered = sorted(set(texts), key=lambda text: (len(text), text))
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


def load_judge(name: str, auto_class: str, flag: str, what: str, spare: tuple[str, ...] = ()):
    """(tokenizer, model) of a local directory or the hub, in float32.

    Args:
        name: directory or hub id.
        auto_class: class of transformers that loads it.
        flag: the setting that named it.
        what: what it is, for messages.
        spare: parts of the names of weights that may be missing because they are not used.

    Raises:
        UserError: it cannot be had, cannot be read, or lacks weights.
    """
    import transformers

    advice = f"give --{flag} a directory with a model, or leave it out"

    def load(**where):
        model, info = getattr(transformers, auto_class).from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **where
        )
        return model, info, load_tokenizer(name, **where)

    model, info, tokenizer = local_or_hub(
        name,
        load,
        what=f"the {what} '{name}'",
        advice=advice,
        no_folder=f"{flag} is '{name}': no such model directory (config.json is missing); {advice}",
        unreadable=lambda reason: f"cannot load the {what} '{name}': {reason}; {advice}",
    )
    missing = [key for key in info["missing_keys"] if not any(part in key for part in spare)]
    if missing:
        raise UserError(f"the {what} '{name}' lacks weights ({missing[0]}): random ones would mean nothing; {advice}")
    return tokenizer, model.eval()


def longest_of(model) -> int:
    """The most word pieces of a text that a model may read here."""
    return min(LONGEST, getattr(model.config, "max_position_embeddings", LONGEST) or LONGEST)
