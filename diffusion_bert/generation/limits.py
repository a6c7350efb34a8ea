"""What texts a model can take, and how its ids read as English."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..data.batching import Collator
from ..data.skills import is_continuing, is_pair
from ..errors import UserError
from ..model.diffusion_model import DiffusionModel
from ..text.casing import sentence_case
from ..text.english import MASK, split_sentences, unencodable
from ..text.masks import with_masks
from .infilling import tokenize_masked


class TextLimits:
    """A model seen from the side of texts: what it can take whole, sentence by sentence, or not at all."""

    def __init__(self, model: DiffusionModel):
        self.model, self.tokenizer = model, model.tokenizer
        self.collator = Collator(model.tokenizer, model.skills.prompts, model.skills.continuing_prompts)

    def check_text(self, text: str) -> None:
        """Refuse what no skill can work on: no string, no characters, no words."""
        if not isinstance(text, str):
            raise UserError(f"the text is of type {type(text).__name__}: expected a string")
        if problem := unencodable(text):
            raise UserError(f"the text {problem}")
        ids = self.tokenizer.encode(text)
        if not ids:
            raise UserError("the text is empty: expected some words")
        if set(ids) == {self.tokenizer.unk_id}:
            raise UserError("the vocabulary of this model knows nothing in the text: expected words it may know")

    def checked_texts(self, text: str | Sequence[str]) -> list[str]:
        """The texts as a list, each one that a skill can work on."""
        if not isinstance(text, Iterable) or isinstance(text, (dict, bytes)) or getattr(text, "ndim", 1) == 0:
            raise UserError(f"the text is of type {type(text).__name__}: expected a string or a list of strings")
        texts = [text] if isinstance(text, str) else list(text)
        for number, item in enumerate(texts):
            try:
                self.check_text(item)
            except UserError as error:
                raise error if isinstance(text, str) else UserError(f"item {number} of the list: {error}") from None
        return texts

    def source_parts(self, text: str) -> list[str]:
        """The text as a source, or sentence by sentence where it is too long for one; refused where a sentence is."""
        parts = [text] if self._fits_as_source(text) else split_sentences(text)
        for part in parts:
            if not self._fits_as_source(part):
                raise UserError(
                    f"a sentence of {len(self.tokenizer.encode(part))} word pieces is too long: this model takes"
                    f" {self.source_limit()}; shorten it"
                )
        return parts

    def complete_source(self, text: str) -> list[int]:
        """The ids of a text to be continued; refused where it is too long."""
        source = self.tokenizer.encode(text)
        limit = (
            self.model.config.data.max_length
            - 4
            - max(len(ids) for skill, ids in self.collator.prompts.items() if is_continuing(skill))
        )
        if len(source) > limit:
            raise UserError(
                f"the text has {len(source)} word pieces: this model can continue at most {limit}; shorten it"
            )
        return source

    def fill_parts(self, text: str) -> list[tuple[str, bool]]:
        """(sentence, is there something to write in it) for a text to be filled; refused where a sentence is too
        long. A [MASK] may be typed in other ways (``with_masks``).
        """
        text = with_masks(text)
        parts = [text] if self._fits_as_target(text) else split_sentences(text)
        for part in parts:
            if not self._fits_as_target(part):
                raise UserError(
                    f"a sentence of {len(tokenize_masked(part, self.tokenizer)[0])} word pieces is too long: "
                    f"this model takes {self.target_limit()}; shorten it"
                )
        # a sentence may hold nothing that the vocabulary can see
        return [
            (part, MASK in part if MASK in text else bool(tokenize_masked(part, self.tokenizer)[0])) for part in parts
        ]

    def masked_parts(self, text: str) -> list[tuple[str, bool]]:
        """``fill_parts`` of a text that must hold a [MASK]."""
        if MASK not in with_masks(text):
            raise UserError(f"no {MASK} in the text: write {MASK} where a word is wanted, or use fill")
        return self.fill_parts(text)

    def sentence(self, ids: list[int], source: str = "") -> str:
        """Generated ids as a normal English sentence; names take their spelling from the source."""
        return self.cased(self.tokenizer.text(ids), source)

    def cased(self, text: str, source: str) -> str:
        return sentence_case(text, source) if self.tokenizer.is_uncased else text

    def source_limit(self) -> int:
        """Longest source in word pieces: half as many places again must be left for the target, and no more than two
        targets long.
        """
        prompts = (ids for skill, ids in self.collator.prompts.items() if is_pair(skill))
        room = self.model.config.data.max_length - 3 - max(map(len, prompts))
        return min(room * 2 // 3, 2 * self.model.denoiser.max_target_length)

    def target_limit(self) -> int:
        """Longest text that can be worked on as a target, in word pieces."""
        return min(self.model.config.data.max_length - 3, self.model.denoiser.max_target_length)

    def _fits_as_source(self, text: str) -> bool:
        return len(self.tokenizer.encode(text)) <= self.source_limit()

    def _fits_as_target(self, text: str) -> bool:
        return len(tokenize_masked(text, self.tokenizer)[0]) <= self.target_limit()
