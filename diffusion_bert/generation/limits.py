"""What texts a model can take, and how its ids read as English."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..data.batching import Collator
from ..data.skills import is_continuing, is_pair
from ..errors import UserError
from ..model.diffusion_model import DiffusionModel
from ..text.casing import sentence_case
from ..text.english import MASK, split_sentences, unencodable
from ..text.masks import GAP, HOLE, with_masks
from ..text.paragraphs import is_fragment, sentence_parts
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
        seen = {index for index in ids if not bool(self.tokenizer.signs[index])}  # [UNK] has letters, too
        if seen == {self.tokenizer.unk_id}:
            raise UserError("the vocabulary of this model knows nothing in the text: expected words it may know")

    def checked_texts(self, text: str | Sequence[str]) -> list[str]:
        """The texts as a list, each one that a skill can work on."""
        if not isinstance(text, str):
            no_texts, scalar = (dict, set, frozenset, bytes, bytearray), getattr(text, "ndim", 1) == 0
            if not isinstance(text, Iterable) or isinstance(text, no_texts) or scalar:
                raise UserError(f"the text is of type {type(text).__name__}: expected a string or a list of strings")
        texts = [text] if isinstance(text, str) else list(text)
        for number, item in enumerate(texts):
            try:
                self.check_text(item)
            except UserError as error:
                raise error if isinstance(text, str) else UserError(f"item {number} of the list: {error}") from None
        return texts

    def source_parts(self, text: str, whole: bool = False) -> list[tuple[str, bool]]:
        """(stretch, is it a source) for a text to be rewritten, so that the stretches joined are the text: its
        sentences and what stands between them (text/paragraphs.py), or with ``whole`` the text as one source where it
        fits. No sources are sentences without a word that the vocabulary knows and, beside others, a few words without
        a final mark (a greeting, a name, an item of a list). One that is too long is refused.
        """
        parts = [(text, True)]
        if not (whole and self._fits_as_source(text)):
            found = sentence_parts(text, self._fits_as_source)
            known = [(part, is_sentence and self._is_known(part)) for part, is_sentence in found]
            full = [(part, is_known and not is_fragment(part)) for part, is_known in known]
            parts = next((rows for rows in (full, known) if any(is_source for _, is_source in rows)), parts)
        for part, is_source in parts:
            if is_source and not self._fits_as_source(part):
                raise UserError(
                    f"a sentence of {len(self.tokenizer.encode(part))} word pieces is too long: this model takes"
                    f" {self.source_limit()}; shorten it"
                )
        return parts

    def _is_known(self, text: str) -> bool:
        """Whether the vocabulary knows anything in a text."""
        return bool(set(self.tokenizer.encode(text)) - {self.tokenizer.unk_id})

    def complete_source(self, text: str, windowed: bool = False) -> list[int]:
        """The ids of a text to be continued, or (``windowed``) of its last sentences where it is too long; refused
        where that is too long, too.
        """
        source, limit = self.tokenizer.encode(text), self._room_to_continue() - 1
        if windowed and len(source) > limit:
            source = self.tokenizer.encode(self.last_sentences(text))
        if len(source) > limit:
            raise UserError(
                f"the text has {len(source)} word pieces: this model can continue at most {limit}; shorten it"
            )
        return source

    def last_sentences(self, text: str) -> str:
        """The last sentences of a text that fit as the source of a continuation and leave room for it, at least one."""
        limit = min(self._room_to_continue() * 2 // 3, 2 * self.model.denoiser.max_target_length)
        *before, kept = split_sentences(text)
        for sentence in reversed(before):
            if len(self.tokenizer.encode(sentence + kept)) > limit:
                break
            kept = sentence + kept
        return kept

    def _room_to_continue(self) -> int:
        """Places for a text to be continued and its continuation together."""
        prompts = (ids for skill, ids in self.collator.prompts.items() if is_continuing(skill))
        return self.model.config.data.max_length - 3 - max(map(len, prompts))

    def fill_parts(self, text: str, max_gap: int = 1) -> list[tuple[str, bool]]:
        """(sentence, is there something to write in it) for a text to be filled; refused where a sentence is too
        long. A [MASK] or a gap may be typed in other ways (``with_masks``). A text in which not every gap could have
        ``max_gap`` pieces is worked on sentence by sentence, too.
        """
        text = with_masks(text)
        has_holes, parts = HOLE.search(text) is not None, [(text, True)]
        if not self._fits_as_target(text, (max_gap - 1) * text.count(GAP)):
            parts = sentence_parts(text, self._fits_as_target)
        for part, _ in parts:
            if not self._fits_as_target(part):
                raise UserError(
                    f"a sentence of {len(tokenize_masked(part, self.tokenizer)[0])} word pieces is too long: "
                    f"this model takes {self.target_limit()}; shorten it"
                )
        # a sentence may hold nothing that the vocabulary can see
        return [
            (part, HOLE.search(part) is not None if has_holes else found and bool(self.tokenizer.encode(part)))
            for part, found in parts
        ]

    def masked_parts(self, text: str) -> list[tuple[str, bool]]:
        """``fill_parts`` of a text that must hold a [MASK] or a gap."""
        if HOLE.search(with_masks(text)) is None:
            raise UserError(
                f"no {MASK} in the text: write {MASK} where a word is wanted, {GAP} for some words, or use fill"
            )
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

    def _fits_as_target(self, text: str, more: int = 0) -> bool:
        return len(tokenize_masked(text, self.tokenizer)[0]) + more <= self.target_limit()
