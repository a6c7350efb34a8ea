"""Finished texts read by the model: how likely they are, and which of their words should be others."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.schema import SamplingConfig
from ..data.skills import NO_SOURCE
from ..errors import UserError
from ..model.diffusion_model import DiffusionModel
from ..text.english import MASK, split_sentences
from ..text.masks import HOLE, with_masks
from .correcting import Correction, correct
from .limits import TextLimits
from .options import checked_options
from .scoring import TextScore, score_texts


class TextReader(TextLimits):
    """Reading with one model. Options (:class:`SamplingConfig`) are set once and may be overridden by keyword in every
    call.
    """

    def __init__(self, model: DiffusionModel, options: SamplingConfig | None = None, task: str | None = None):
        """``task``: the one that is meant where none is named (default: the model's first)."""
        super().__init__(model)
        self.options = options or SamplingConfig()
        self.task = model.skills.first if task is None else task

    def score(
        self, text: str | Sequence[str], target: str | Sequence[str] | None = None, task: str | None = None, **options
    ) -> TextScore | list[TextScore]:
        """How likely a text is (:class:`TextScore`): ``score(text)`` alone, ``score(source, target)`` the target beside
        its source, as ``task`` would write it. Of two strings one score; of lists, which are read in batches, a list.

        ``score_draws`` noise draws estimate the NELBO; the same text and seed have the same noise wherever they stand.

        >>> g.score("How can I learn to cook?", "What is the best way to learn cooking?").nelbo_per_piece
        """
        texts, options = self._checked(text, options)
        if target is None:
            skill, sources, targets = NO_SOURCE, [""] * len(texts), texts
        else:
            skill = self.model.skills.number(task or self.task, options.style)
            targets = self.checked_texts(target)
            sources = texts
            if isinstance(text, str) != isinstance(target, str) or len(sources) != len(targets):
                sizes = len(sources), len(targets)
                raise UserError(
                    f"{sizes[0]} {'source' if sizes[0] == 1 else 'sources'} and {sizes[1]} targets: expected two"
                    " strings, or two lists of the same length"
                )
        for number, pair in enumerate(zip(sources, targets)):
            try:
                self.check_scorable(*pair, skill)
            except UserError as error:
                raise error if isinstance(text, str) else UserError(f"item {number} of the list: {error}") from None
        encode = self.tokenizer.encode
        examples = [(skill, encode(source), encode(item)) for source, item in zip(sources, targets)]
        scores = score_texts(self.model, examples, self.collator, options.score_draws, options.seed, options.batch_size)
        return scores[0] if isinstance(text, str) else scores

    def check_scorable(self, source: str, target: str, skill: int) -> None:
        """Refuse a target, or a source with it, that is too long to be scored: it is never cut."""
        size, limit = len(self.tokenizer.encode(target)), self.target_limit()
        if size > limit:
            raise UserError(f"the text has {size} word pieces: this model scores at most {limit}; shorten it")
        room = self.model.config.data.max_length - 3 - len(self.collator.prompts[skill]) - size
        if (length := len(self.tokenizer.encode(source))) > room:
            raise UserError(
                f"the source has {length} word pieces: beside this target the model takes {room}; shorten it"
            )

    def correct_text(self, text: str | Sequence[str], **options) -> Correction | list[Correction]:
        """The text after at most ``max_changes`` corrections, and what they are (:class:`Correction`): words that the
        model finds unlikely where they stand are replaced, a doubled word is dropped, a missing one added, two are
        exchanged. All else comes back as it was typed.

        A longer text is read sentence by sentence; a list of texts gives a list.

        >>> g.correct_text("I want want to go home.").text
        'I want to go home.'
        """
        texts, options = self._checked(text, options)
        parts = [self.correctable_parts(item) for item in texts]
        corrections = correct(
            self.model, parts, self.collator, self.cased, options.max_changes, self.target_limit(), options.batch_size
        )
        return corrections[0] if isinstance(text, str) else corrections

    def correctable_parts(self, text: str) -> list[str]:
        """The text, or its sentences where it is too long; refused where one is, or where a [MASK] is left."""
        if HOLE.search(with_masks(text)) is not None:
            raise UserError(f"there is a {MASK} in the text: fill it first with mask; fix reads finished texts")
        limit = self.target_limit() - 2  # a final mark may be read with it, and a word added
        parts = [text] if len(self.tokenizer.encode(text)) <= limit else split_sentences(text)
        for part in parts:
            if (size := len(self.tokenizer.encode(part))) > limit:
                raise UserError(
                    f"a sentence of {size} word pieces is too long: this model corrects at most {limit}; shorten it"
                )
        return parts

    def _checked(self, text: str | Sequence[str], overrides: dict) -> tuple[list[str], SamplingConfig]:
        """The texts as a list, and the options with those of this call."""
        options = checked_options({**vars(self.options), **overrides})
        return self.checked_texts(text), options
