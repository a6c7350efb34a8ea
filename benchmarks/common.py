"""What the benchmarks share: a model with random weights, batches of random words, timing in turns, and a line about
the machine.
"""

from __future__ import annotations

import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch

from diffusion_bert.config.run_config import RunConfig
from diffusion_bert.config.tasks import PROMPTS
from diffusion_bert.data.batching import Collator
from diffusion_bert.data.encoded import EncodedPairs
from diffusion_bert.data.skills import PAIR
from diffusion_bert.data.tokenizer import SPECIAL_TOKENS, TextTokenizer
from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.machine.storage import versions
from diffusion_bert.model.diffusion_model import DiffusionModel, assemble, fit_schedule

PROMPT = PROMPTS[0]
ROOT = Path(__file__).resolve().parent.parent  # of the repository
WORDS = 1500  # made-up ones, in made-up pairs


def machine() -> str:
    """One line: versions, processor, threads, GPU."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    except OSError:
        pass
    found = versions()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"diffusion_bert {found['diffusion_bert']}, torch {found['torch']}, transformers {found['transformers']},"
        f" Python {found['python']}; {name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used{gpu}"
    )


def markdown_table(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows of named figures as a table, whose columns are all names in the order in which they first come."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(lines + ["| " + " | ".join(_cell(row.get(name, "")) for name in names) + " |" for row in rows])


def _cell(value) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def synthetic_tokenizer(vocab_size: int) -> TextTokenizer:
    """A vocabulary of made-up words: the speed of a model does not depend on what they mean."""
    prompts = dict.fromkeys(piece for text in PROMPTS for piece in (text.rstrip(":"), ":"))
    tokens = [*SPECIAL_TOKENS, *prompts]
    return TextTokenizer.from_vocabulary([*tokens, *(f"w{number}" for number in range(vocab_size - len(tokens)))])


def synthetic_model(
    layers: int, width: int, heads: int, vocab_size: int, max_length: int, seed: int = 0, **settings
) -> DiffusionModel:
    """A model with random weights, without dropout unless ``settings`` have it, and a word-frequency schedule from
    Zipf's law; ``settings`` as in a preset.
    """
    from transformers import BertConfig

    flat = {"max_length": max_length, "max_target_length": max_length - 8, "dropout": 0.0, "seed": seed, **settings}
    config = RunConfig.from_flat({"source_dropout": 0.0, "continue_share": 0.0, **flat})
    tokenizer = synthetic_tokenizer(vocab_size)
    torch.manual_seed(seed)
    bert_config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=max(512, max_length),
        hidden_dropout_prob=config.model.dropout,
        attention_probs_dropout_prob=config.model.dropout,
        pad_token_id=tokenizer.pad_id,
    )
    denoiser = assemble(config, bert_config, tokenizer)
    model = DiffusionModel(
        denoiser.eval(), tokenizer, NoiseSchedule(config.diffusion.schedule, config.diffusion.word_freq_lambda), config
    )
    fit_schedule(model, [zipf_words(2000, vocab_size, torch.Generator().manual_seed(seed)).tolist()])
    return model


def zipf_words(size: int, vocab_size: int, generator: torch.Generator) -> torch.Tensor:
    """Random word ids [size], p(rank) proportional to 1 / rank."""
    first = len(SPECIAL_TOKENS)
    weights = 1.0 / torch.arange(1, vocab_size - first + 1)
    return first + torch.multinomial(weights, size, replacement=True, generator=generator)


def synthetic_pairs(model: DiffusionModel, count: int, length: int, seed: int = 0) -> EncodedPairs:
    """``count`` examples that fill exactly ``length`` places each, half of them target (its [SEP] included)."""
    import numpy as np

    target = length // 2 - 1
    source = length - length // 2 - 2 - len(Collator(model.tokenizer, PROMPT).prompts[PAIR])
    if source < 1 or target < 1:
        raise ValueError(f"length is {length}: too short for a source and a target")
    generator = torch.Generator().manual_seed(seed)
    ids = zipf_words(count * (source + target), model.tokenizer.vocab_size, generator).numpy().astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(np.tile([source, target], count))])
    return EncodedPairs(ids, offsets, np.ones(count, dtype=bool))


def write_pairs(path: Path, rows: int, seed: int) -> None:
    """``rows`` made-up pairs as .jsonl, a block at a time."""
    import numpy as np

    letters = random.Random(seed)
    words = sorted(
        {"".join(letters.choices("abcdefghijklmnoprstuvwyz", k=2 + number % 7)) for number in range(2 * WORDS)}
    )
    words = letters.sample(words, WORDS)
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(words) + 1)
    with open(path, "w", encoding="utf-8") as file:
        for start in range(0, rows, 10_000):
            lengths = rng.integers(5, 21, size=min(10_000, rows - start))
            drawn = [
                words[index]
                for index in rng.choice(len(words), size=int(lengths.sum()), p=weights / weights.sum()).tolist()
            ]
            end = 0
            for length, turn, other in zip(lengths.tolist(), rng.integers(1, 20, size=len(lengths)).tolist(), drawn):
                source, end = drawn[end : end + length], end + length
                first = turn % length
                target = [other, *source[first + 1 :], *source[:first]]
                file.write(f'{{"src": "{" ".join(source)}?", "trg": "{" ".join(target)}."}}\n')


def time_in_turns(
    works: dict[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    synchronize: Callable[[], object] = lambda: None,
    before: Callable[[str], None] = lambda name: None,
):
    """Seconds of each call, {name: [rounds]}, in the order A B C A B C ...: whatever slows the machine down for a while
    slows all of them.

    ``before`` is called with the name ahead of each, untimed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(-warmup, rounds):
        for name, work in works.items():
            before(name)
            synchronize()
            start = time.perf_counter()
            work()
            synchronize()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> str:
    """How many times faster, with the quartiles over the rounds: ``3.10x (3.02-3.15)``."""
    turns = sorted(a / b for a, b in zip(slow, fast))
    middle = statistics.median(slow) / statistics.median(fast)
    if len(turns) < 4:
        return f"{middle:.2f}x"
    low, _, high = statistics.quantiles(turns, n=4)
    return f"{middle:.2f}x ({low:.2f}-{high:.2f})"


def matmul_peak(device: torch.device, dtype: torch.dtype = torch.float32, size: int = 2048, rounds: int = 4) -> float:
    """Floating-point operations per second of the best of some square matrix products."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = time_in_turns({"matmul": lambda: torch.mm(a, b, out=out)}, rounds, 1, synchronize)["matmul"]
    return 2 * size**3 / min(seconds)
