"""How likely a finished text is, word by word, when each word is hidden and all others are seen.

Candidates are drawn while their other places are still hidden; this score reads the finished sentence instead. It is a
pseudo-log-likelihood (Salazar et al. 2020, arXiv 1910.14659) of the text beside its source.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.batching import Collator
from ..model.diffusion_model import DiffusionModel
from .canvas import Canvas, stacked
from .denoise import Network


@torch.no_grad()
def leave_one_out(
    model: DiffusionModel,
    canvases: Sequence[Canvas],
    texts: Sequence[Sequence[int]],
    collator: Collator,
    batch_size: int = 128,
    together: bool = True,
) -> list[Tensor]:
    """log p(y_i | y without i, source) at every place i that a canvas left open, for its finished text y.

    With ``together`` all places that hold the piece of place i are hidden with it (but for punctuation and the like):
    otherwise a repeated word would vouch for itself. What holds [MASK] in y stays hidden all the while. A network that
    knows the time is told the one at which so many places are masked; there is no correction for the time, since the
    places were not chosen by noise.

    Returns:
        One float64 tensor [len(y)] per text, NaN where the canvas gave the word. Texts that are equal, beside the same
        source, are computed once; ``batch_size`` rows (text, place) go through the network together.
    """
    mask_id, repeatable = model.tokenizer.mask_id, model.tokenizer.repeatable
    keys = [
        (canvas.skill, tuple(canvas.source), tuple(text), tuple(word == mask_id for word in canvas.words))
        for canvas, text in zip(canvases, texts)
    ]
    rows: list[Canvas] = []
    owners: list[tuple[tuple, int]] = []
    scores: dict[tuple, Tensor] = {}
    for key in keys:
        if key in scores:
            continue
        skill, source, text, is_open = key
        scores[key] = torch.full((len(text),), float("nan"), dtype=torch.float64)
        for place in (place for place, flag in enumerate(is_open) if flag):
            alone = not together or bool(repeatable[text[place]])
            hidden = [other == place if alone else word == text[place] for other, word in enumerate(text)]
            words = [mask_id if hide else word for word, hide in zip(text, hidden)]
            tau = float(model.schedule.tau(torch.tensor(words.count(mask_id) / len(text), dtype=torch.float64)))
            rows.append(Canvas(skill, source, words, tau))
            owners.append((key, place))
    for start in range(0, len(rows), batch_size):
        chosen = owners[start : start + batch_size]
        words = torch.tensor([key[2][place] for key, place in chosen], device=model.device)
        log_mu = log_probs_at(model, rows[start : start + batch_size], [place for _, place in chosen], collator)
        for (key, place), value in zip(chosen, log_mu.gather(-1, words[:, None]).squeeze(-1).tolist()):
            scores[key][place] = value
    return [scores[key] for key in keys]


@torch.no_grad()
def log_probs_at(model: DiffusionModel, group: Sequence[Canvas], at: Sequence[int], collator: Collator) -> Tensor:
    """log mu [B, V] at one masked place of each of B canvases that go through the network together."""
    x_t, _ = stacked(group, model.tokenizer, "cpu")  # the network is asked from the host
    network = Network(model, group, collator, x_t.shape[1])
    tau = torch.tensor([canvas.tau for canvas in group], dtype=torch.float64)
    places, active = torch.tensor(at), torch.arange(len(group))
    if network.denoiser.keeps_source and network.expected is None:  # the head is asked for one place of each
        return network(x_t, tau, active, active, places)
    rows, columns = (x_t == model.tokenizer.mask_id).nonzero(as_tuple=True)
    wanted = (columns == places[rows]).nonzero().squeeze(-1)
    return network(x_t, tau, active, rows, columns)[wanted.to(model.device)]


def text_score(scores: Tensor, log_length: float) -> float:
    """Mean of the leave-one-out scores of a text's open places and of log p(length | source), in nats per piece."""
    known = scores[~scores.isnan()]
    return (float(known.sum()) + log_length) / (len(known) + 1)
