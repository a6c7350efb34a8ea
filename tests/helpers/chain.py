"""Shared builders of the tests: the schedule written down a second time, small enumerable chains, tiny models and
batches.
"""

import math
from itertools import product

import torch
from transformers import BertConfig

from diffusion_bert.data.batch import Batch
from diffusion_bert.diffusion.process import AbsorbingDiffusion
from diffusion_bert.diffusion.random_numbers import row_keys
from diffusion_bert.diffusion.schedule import NoiseSchedule
from diffusion_bert.model.denoiser import BertDenoiser

# ---- the toy chain: four words and [MASK], two places, four steps ---------------------------------------------------

WORDS, MASK, VOCAB, PLACES, STEPS = 4, 4, 5, 2, 4
H = torch.tensor([-1.0, -0.4, 0.3, 0.9, 0.0], dtype=torch.float64)  # [MASK] last
SEQUENCES = torch.tensor(list(product(range(WORDS), repeat=PLACES)))  # [16, 2] every clean x_0
STATES = torch.tensor(list(product(range(VOCAB), repeat=PLACES)))  # [25, 2] every x_t


def toy_schedule(name: str, word_freq_lambda: float) -> NoiseSchedule:
    return NoiseSchedule(name, word_freq_lambda, H)


def state_index(x_t: torch.Tensor) -> torch.Tensor:
    """Row of STATES for each x_t [..., 2]."""
    return x_t[..., 0] * VOCAB + x_t[..., 1]


def alpha_by_hand(name: str, word_freq_lambda: float, t: int, steps: int = STEPS, h: torch.Tensor = H) -> torch.Tensor:
    """alpha_t(v) for every word, straight from the formula, [V]."""
    if t in (0, steps):
        return torch.full_like(h, 1.0 if t == 0 else 0.0)
    u = t / steps if name == "mutual" else math.sin(math.pi * t / (2 * steps)) ** 2
    return 1 - u - word_freq_lambda * math.sin(math.pi * u) * h


def forward_matrix(name: str, word_freq_lambda: float, s: int, t: int, steps: int = STEPS) -> torch.Tensor:
    """q(x_t | x_s) of one place as an explicit matrix [V, V], a product of one-step matrices."""
    matrix = torch.eye(VOCAB, dtype=torch.float64)
    for step in range(s + 1, t + 1):
        stay = alpha_by_hand(name, word_freq_lambda, step, steps) / alpha_by_hand(
            name, word_freq_lambda, step - 1, steps
        )
        stay[MASK] = 1.0
        one = torch.diag(stay)
        one[:, MASK] += 1 - stay
        matrix = matrix @ one
    return matrix


def bayes_posterior(name: str, word_freq_lambda: float, s: int, t: int, x_0: int, x_t: int) -> torch.Tensor | None:
    """q(x_s | x_t, x_0) of one place, [V], by Bayes' rule from the forward matrices; None where x_t is impossible."""
    joint = forward_matrix(name, word_freq_lambda, 0, s)[x_0] * forward_matrix(name, word_freq_lambda, s, t)[:, x_t]
    return joint / joint.sum() if joint.sum() > 0 else None


def random_log_mu(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """An arbitrary denoiser: log mu [*shape, V] with no mass on [MASK]."""
    logits = 2 * torch.randn(*shape, VOCAB, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits[..., MASK] = float("-inf")
    return torch.log_softmax(logits, dim=-1)


def keys_of(rows: int, seed: int) -> torch.Tensor:
    """Keys of the random numbers of so many rows, each a text of its own."""
    return row_keys(seed, range(rows), [0] * rows)


def reverse_law(name: str, word_freq_lambda: float, log_mu: torch.Tensor) -> torch.Tensor:
    """p(x_0) over STATES, [25], by running the reverse chain as explicit 25 x 25 matrices. log_mu [T + 1, 25, places,
    V].

    Written without the package: r(v) comes from alpha_by_hand.
    """
    law = torch.zeros(len(STATES), dtype=torch.float64)
    law[state_index(torch.full((PLACES,), MASK))] = 1.0
    for t in range(STEPS, 0, -1):
        alpha_s, alpha_t = alpha_by_hand(name, word_freq_lambda, t - 1), alpha_by_hand(name, word_freq_lambda, t)
        r = (alpha_s - alpha_t) / (1 - alpha_t)
        matrix = torch.ones(len(STATES), len(STATES), dtype=torch.float64)
        for index, state in enumerate(STATES.tolist()):
            for place, token in enumerate(state):
                one = torch.zeros(VOCAB, dtype=torch.float64)
                if token == MASK:
                    one += log_mu[t, index, place].exp() * r
                    one[MASK] = 1 - one.sum()
                else:
                    one[token] = 1.0
                matrix[index] *= one[STATES[:, place]]
        law = law @ matrix
    return law


def within_sigmas(counts: torch.Tensor, law: torch.Tensor, sigmas: float = 4.0) -> bool:
    """Every count of a multinomial sample lies within ``sigmas`` standard deviations; what is impossible never
    occurs.
    """
    total, law = counts.sum().double(), law.clamp(min=0)  # rounding
    deviation = (counts.double() - total * law).abs()
    return bool((deviation <= sigmas * (total * law * (1 - law)).sqrt() + 1e-6).all())


# ---- tiny models ---------------------------------------------------------------------------------------------------

PAD, CLS, SEP, BERT_MASK, UNK, FIRST_WORD, BERT_VOCAB = 0, 1, 2, 3, 4, 5, 40
FORBIDDEN = [PAD, CLS, SEP, BERT_MASK]
MAX_TARGET = 8


def make_denoiser(seed: int = 0, **options) -> BertDenoiser:
    """A random two-layer BERT of width 32 in float64, with weights large enough for every path to matter."""
    config = BertConfig(
        vocab_size=BERT_VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=48,
        initializer_range=0.2,
        pad_token_id=PAD,
    )
    torch.manual_seed(seed)
    return BertDenoiser(config, FORBIDDEN, MAX_TARGET, **options).double().eval()


def make_diffusion(name: str = "mutual", lam: float = 0.3) -> AbsorbingDiffusion:
    """A process over the words of ``make_denoiser``, their informativeness at random."""
    h = torch.linspace(-1, 1, BERT_VOCAB, dtype=torch.float64)[
        torch.randperm(BERT_VOCAB, generator=torch.Generator().manual_seed(0))
    ]
    h[FORBIDDEN] = 0.0
    return AbsorbingDiffusion(NoiseSchedule(name, lam, h), BERT_MASK)


def make_batch(rows: list[tuple[list[int], list[int]]], prompt_length: int = 1) -> Batch:
    """``[CLS] source [SEP] target [SEP]`` from (source with its prompt, target) lists of ids; an empty source has no
    prompt either.
    """
    sequences = [[CLS, *source, SEP, *target, SEP] for source, target in rows]
    width = max(map(len, sequences))
    return Batch(
        input_ids=torch.tensor([[*ids, *[PAD] * (width - len(ids))] for ids in sequences]),
        source_length=torch.tensor([len(source) + 2 for source, _ in rows]),
        prompt_length=torch.tensor([prompt_length if source else 0 for source, _ in rows]),
        target_length=torch.tensor([len(target) for _, target in rows]),
        pad_id=PAD,
        mask_id=BERT_MASK,
    )


def mixed_rows() -> list[tuple[list[int], list[int]]]:
    """Sources and targets of mixed lengths; one source repeats words, one is empty."""
    return [
        ([5, 10, 11, 10, 12, 10], [20, 10, 21]),
        ([5, 13], [22, 23, 24, 25, 13]),
        ([], [26, 27]),
        ([5, 14, 15, 16], [28]),
    ]
