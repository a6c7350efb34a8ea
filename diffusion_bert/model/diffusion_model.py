"""A model with all that belongs to it, and the only place that builds one from a config."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..config.run_config import RunConfig
from ..config.schema import BUILT_IN_SIZES
from ..config.tasks import PROMPTS, TASKS, Task
from ..data.lexicon import Lexicon, WordCounts, words_of
from ..data.skills import Skills
from ..data.tokenizer import TextTokenizer
from ..diffusion.process import AbsorbingDiffusion
from ..diffusion.schedule import NoiseSchedule
from ..diffusion.word_frequency import count_tokens, informativeness
from ..errors import UserError
from .denoiser import BertDenoiser
from .encoders import family_of
from .pretrained import load_pretrained, quiet_transformers


@dataclass
class DiffusionModel:
    """Denoiser, tokenizer, schedule and settings: what a checkpoint holds."""

    denoiser: BertDenoiser
    tokenizer: TextTokenizer
    schedule: NoiseSchedule
    config: RunConfig
    # [V], over the training targets
    token_counts: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    metrics: dict = field(default_factory=dict)
    parent: str | None = None
    knows_pairs: bool = True  # False when it has only ever seen plain texts: it fills and continues, but cannot rewrite
    skills: Skills | None = None  # its prompts; None: those of the tasks in its config
    # words of several pieces in its training targets, flat (data/lexicon.py)
    lexicon: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int32))
    weights_sha256: str = ""  # digest of the weights in the file it was read from
    _known: tuple[Tensor, Lexicon] | None = field(default=None, repr=False)  # made from ``lexicon`` when it is asked

    def __post_init__(self):
        self.skills = self.skills or Skills.of(self.config.data.task_name)

    @property
    def known_words(self) -> Lexicon:
        """The words of ``lexicon``, ready to be asked."""
        if self._known is None or self._known[0] is not self.lexicon:
            words = words_of(self.lexicon.tolist(), self.tokenizer.continuation.tolist())
            self._known = self.lexicon, Lexicon(words)
        return self._known[1]

    @property
    def task(self) -> Task:
        """The task that is meant when none is named."""
        return TASKS[self.skills.first]

    @property
    def diffusion(self) -> AbsorbingDiffusion:
        return AbsorbingDiffusion(self.schedule, self.tokenizer.mask_id)

    @property
    def device(self) -> torch.device:
        return self.denoiser.forbidden_bias.device

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.denoiser.parameters())

    def to(self, device) -> DiffusionModel:
        """Move network and schedule."""
        self.denoiser.to(device)
        self.schedule.to(device)
        return self


def build_model(
    config: RunConfig,
    texts: Iterable[str],
    seed: int,
    tokenizer: TextTokenizer | None = None,
    skills: Skills | None = None,
) -> DiffusionModel:
    """A fresh model for a config: pretrained, or built-in size with a vocabulary learned from ``texts`` (or that of
    ``tokenizer``). The schedule is still plain (``fit_schedule`` adds the word frequencies once the targets are
    encoded). ``skills``: with styles, if there are some.

    Raises:
        UserError: no such model, not a BERT, or too short for max_length.
    """
    name = config.model.model_name_or_path
    pretrained = None
    skills = skills or Skills.of(config.data.task_name)
    styled = [skill.prompt for skill in skills.table if skill.style is not None]
    torch.manual_seed(seed)
    if name in BUILT_IN_SIZES:
        size, strip = config.model.vocab_size, config.model.strip_accents
        tokenizer = tokenizer or TextTokenizer.learn([*texts, *PROMPTS * 100, *styled * 100], size, strip)
        layers, width, heads = BUILT_IN_SIZES[name]
        from transformers import BertConfig

        bert_config = BertConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=max(512, config.data.max_length),
            pad_token_id=tokenizer.pad_id,
            # BERT's 0.02 suits a width of 768; a narrow model learns to copy far sooner from larger weights
            initializer_range=0.7 / width**0.5,
        )
    else:
        tokenizer, bert_config, pretrained = load_pretrained(name, weights=not config.model.from_scratch)
    for rate in family_of(bert_config).dropout:
        setattr(bert_config, rate, config.model.dropout)
    denoiser = assemble(config, bert_config, tokenizer)
    if pretrained is not None:
        denoiser.mlm.load_state_dict(pretrained)
    elif name in BUILT_IN_SIZES:
        start_from_sinusoids(denoiser.mlm.bert.embeddings.position_embeddings.weight, bert_config.initializer_range)
    return DiffusionModel(denoiser, tokenizer, NoiseSchedule(config.diffusion.schedule), config, skills=skills)


@torch.no_grad()
def start_from_sinusoids(positions: Tensor, scale: float) -> None:
    """Fill learned position embeddings [P, D] with sinusoids of root mean square ``scale``, as a starting point.

    "The word before" is then one and the same rotation everywhere (arXiv 1706.03762, section 3.5), where random vectors
    would have to be learned place by place.
    """
    count, width = positions.shape
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(count)[:, None] * frequency
    positions[:, 0::2] = angle.sin()
    positions[:, 1::2] = angle.cos()
    positions *= scale * math.sqrt(2)


def assemble(config: RunConfig, bert_config, tokenizer: TextTokenizer) -> BertDenoiser:
    """The denoiser of a config, with fresh weights."""
    check_positions(config, bert_config)
    if tokenizer.vocab_size > bert_config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} word pieces but the model only {bert_config.vocab_size}: they do"
            " not belong together"
        )
    # a vocabulary padded to a round number has entries that no text can produce
    forbidden = [*tokenizer.forbidden_ids, *range(tokenizer.vocab_size, bert_config.vocab_size)]
    with quiet_transformers():
        return BertDenoiser(
            bert_config,
            forbidden,
            config.data.max_target_length,
            config.model.attention,
            config.model.copy_head,
            config.model.timestep,
            config.model.self_conditioning,
        )


def check_positions(config: RunConfig, bert_config) -> None:
    """Refuse sequences longer than the positions that the network has."""
    limit = family_of(bert_config).max_positions(bert_config)
    if config.data.max_length > limit:
        raise UserError(
            f"max_length is {config.data.max_length} but {config.model.model_name_or_path} has only {limit} positions:"
            " lower --max_length"
        )


def fit_schedule(model: DiffusionModel, targets: Iterable) -> None:
    """Give the model its word-frequency schedule, counted over the training targets (sequences of ids), and their words
    of several pieces.
    """
    words = WordCounts(model.tokenizer.continuation)
    vocab_size = model.denoiser.bert_config.vocab_size
    model.token_counts = count_tokens(words.watched(targets), vocab_size)
    table = informativeness(model.token_counts, model.tokenizer.special_ids)
    diffusion = model.config.diffusion
    model.schedule = NoiseSchedule(diffusion.schedule, diffusion.word_freq_lambda, table)
    model.lexicon = words.flat()


def extend_lexicon(model: DiffusionModel, targets: Iterable) -> None:
    """Add the words of further training targets to those that the model knows."""
    continuation = model.tokenizer.continuation
    words = WordCounts(continuation)
    for ids in targets:
        words.add(ids)
    model.lexicon = words.flat(words_of(model.lexicon.tolist(), continuation.tolist()))


COMPILERS = ("g++", "clang++", "gcc", "clang")


def compile_encoder(denoiser, backend: str = "inductor") -> str | None:
    """Compile the encoder of a ``BertDenoiser`` in place, for batches of any width; weights keep their names. None, or
    why it was left as it is.

    Compilation itself happens at the first step. Heads stay as they are: they work on a number of places that differs
    from batch to batch.
    """
    if denoiser.timestep == "layerwise":
        return "timestep layerwise hooks into the layers at every call"
    if denoiser.family.encoder != "bert":
        return f"only BERT's encoder is compiled, not that of {denoiser.bert_config.model_type}"
    if backend == "inductor" and not any(shutil.which(name) for name in (os.environ.get("CXX"), *COMPILERS) if name):
        return f"no compiler found ({', '.join(COMPILERS)})"
    denoiser.skips_unread = False
    denoiser.mlm.bert.encoder.compile(dynamic=True, backend=backend)
    return None
