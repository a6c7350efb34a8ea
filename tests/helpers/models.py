"""Shared builders of the tests: a small random model on sentences of the bundled grammar, a small BERT directory as the
hub gives it, refusals.
"""

from functools import lru_cache
from pathlib import Path

import pytest
import torch
import transformers

from diffusion_bert.config.run_config import RunConfig
from diffusion_bert.config.tasks import PROMPTS
from diffusion_bert.data.grammar import Grammar
from diffusion_bert.data.pairs import Pair
from diffusion_bert.data.tokenizer import SPECIAL_TOKENS, TextTokenizer
from diffusion_bert.errors import UserError
from diffusion_bert.model.diffusion_model import DiffusionModel, build_model, fit_schedule

SETTINGS = {
    "model_name_or_path": "tiny",
    "vocab_size": 600,
    "max_length": 64,
    "max_target_length": 24,
    "word_freq_lambda": 0.2,
    "dropout": 0.0,
}


@lru_cache
def grammar_pairs(split: str = "train", size: int = 100) -> tuple[Pair, ...]:
    return tuple(Pair(*pair) for pair in Grammar.load().pairs(split, size))


@lru_cache
def grammar_texts() -> tuple[str, ...]:
    return tuple(text for pair in grammar_pairs() for text in pair)


@lru_cache
def tiny_tokenizer() -> TextTokenizer:
    return TextTokenizer.learn([*grammar_texts(), *PROMPTS * 100], 600)


def tiny_config(**settings) -> RunConfig:
    return RunConfig.from_flat({**SETTINGS, **settings})


def new_model(**settings) -> DiffusionModel:
    """Untrained, in evaluation mode, with a word-frequency schedule: the same every time."""
    model = build_model(tiny_config(**settings), grammar_texts(), seed=0)
    fit_schedule(model, model.tokenizer.encode_many([pair.target for pair in grammar_pairs()]))
    model.denoiser.eval()
    return model


@lru_cache
def tiny_model(attention: str = "isolated") -> DiffusionModel:
    """Shared between tests: do not change it."""
    return new_model(attention=attention)


BERT_WORDS = (
    "how what is the a cook learn to ing ##ing ##s ##ed play ask ? . , ! [ ] mask sep k i can in un ##affable q"
)


def save_bert(
    folder: Path, kind: str = "BertForMaskedLM", vocab_size: int | None = None, lowercase: bool = True
) -> transformers.PreTrainedModel:
    """Write a random BERT of width 32 with its tokenizer to ``folder``, the way transformers does, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*SPECIAL_TOKENS, "[unused0]", *BERT_WORDS.split()]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    transformers.BertTokenizerFast.from_pretrained(folder, do_lower_case=lowercase).save_pretrained(folder)
    torch.manual_seed(5)
    config = transformers.BertConfig(
        vocab_size=vocab_size or len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=80,
    )
    model = getattr(transformers, kind)(config)
    model.save_pretrained(folder)
    return model


def save_gpt(folder: Path, start_token: bool = True) -> transformers.PreTrainedModel:
    """Write a random GPT-2 of width 32 with a tokenizer of words to ``folder``, and return it; ``start_token``: whether
    the tokenizer has one.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    words = ["<start>", "<unknown>", *BERT_WORDS.split()]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"bos_token": "<start>"} if start_token else {}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(5)
    config = transformers.GPT2Config(
        vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=80, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    return model


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def refusal(work, *arguments, **keywords) -> str:
    """The message of the UserError that ``work`` raises; it is always one line."""
    with pytest.raises(UserError) as caught:
        work(*arguments, **keywords)
    message = str(caught.value)
    assert message and "\n" not in message
    return message
