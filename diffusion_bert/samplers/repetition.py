"""No word beside itself: places revealed in one call do not see each other, and a small model then writes "if someone
someone profile".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .places import rank_within_rows


@dataclass
class Repeats:
    """What may not be repeated, for the rows of one run; words are word pieces.

    A word never stands directly beside itself, unless the source has it so. In the rows ``counted`` a content word,
    moreover, stands in the sentence at most as often as in the source, and once if it is not there.

    source_ids [B, S]: the source of each row, S >= 2, padded with -1.
    repeatable [V] bool: pieces that may stand beside themselves.
    content [V] bool: pieces that are counted over the sentence.
    counted [B] bool: rows in which they are.
    before [B]: the word before the first place (of a text that is continued), or -1.
    """

    source_ids: Tensor
    repeatable: Tensor
    content: Tensor
    counted: Tensor
    before: Tensor

    def __post_init__(self):
        twice = self.source_ids[:, 1:] == self.source_ids[:, :-1]
        self._twice = torch.where(twice, self.source_ids[:, 1:], -1)  # [B, S - 1] words that the source repeats

    def forbid(self, x_t: Tensor, rows: Tensor, columns: Tensor, log_mu: Tensor, mask_id: int) -> None:
        """Take the mass of words that would repeat what stands already, in place; log_mu [N, V] at the places (rows,
        columns).

        A place where nothing else is possible keeps its words.
        """
        before = torch.where(self.before < 0, mask_id, self.before)[rows]
        left = torch.where(columns > 0, x_t[rows, (columns - 1).clamp(min=0)], before)
        right = F.pad(x_t, (0, 1), value=mask_id)[rows, columns + 1]
        words = torch.stack([left, right], dim=-1)  # [N, 2]
        words = torch.where(self._bound(rows, words), words, mask_id)
        if bool(self.counted.any()):
            # [B, T]
            full = (
                self.counted[:, None]
                & self.content[x_t]
                & ((x_t[:, :, None] == x_t[:, None, :]).sum(-1) >= self._limit(x_t))
            )
            words = torch.cat([words, torch.where(full, x_t, mask_id)[rows]], dim=-1)
        words = words.to(log_mu.device)
        mass = log_mu.gather(-1, words)  # [MASK] has none: it stands for "nothing to forbid"
        log_mu.scatter_(-1, words, float("-inf"))
        stuck = log_mu.amax(-1, keepdim=True).isneginf()
        log_mu.scatter_(-1, words, torch.where(stuck, mass, float("-inf")))

    def clash(self, x_t: Tensor, rows: Tensor, columns: Tensor, words: Tensor, chosen: Tensor, score: Tensor) -> Tensor:
        """Which of the places [N] chosen for ``words`` would repeat a word chosen in the same call at a place of higher
        ``score``, [N] bool.

        The best-scored chosen place of a row is never one of them.
        """
        new = torch.full((x_t.shape[0], x_t.shape[1] + 2), -1, dtype=words.dtype, device=x_t.device)
        value = torch.full(new.shape, float("-inf"), dtype=score.dtype, device=x_t.device)
        at = columns + 1
        new[rows[chosen], at[chosen]] = words[chosen]
        value[rows[chosen], at[chosen]] = score[chosen]
        beside = self._bound(rows, words[:, None]).squeeze(-1)
        # of equals the left one wins
        left = (new[rows, at - 1] == words) & (value[rows, at - 1] >= score)
        right = (new[rows, at + 1] == words) & (value[rows, at + 1] > score)
        clash = chosen & beside & (left | right)
        if bool(self.counted.any()):
            counted = (chosen & self.counted[rows] & self.content[words]).nonzero().squeeze(-1)
            r, w = rows[counted], words[counted]
            rank = rank_within_rows(score[counted], torch.unique(r * len(self.content) + w, return_inverse=True)[1])
            standing = (x_t[r] == w[:, None]).sum(-1)
            clash[counted] |= rank + standing >= self._limit(w[:, None], r).squeeze(-1)
        best = rank_within_rows(torch.where(chosen, score, float("-inf")), rows) == 0
        return clash & ~best

    def _bound(self, rows: Tensor, words: Tensor) -> Tensor:
        """[N, K] whether these words of these rows may not stand beside themselves."""
        in_source = (self._twice[rows][:, None, :] == words[:, :, None]).any(-1)
        return ~self.repeatable[words] & ~in_source

    def _limit(self, words: Tensor, rows: Tensor | None = None) -> Tensor:
        """[B, K] how often these words may stand in a sentence; rows: of which sources (default: all)."""
        source = self.source_ids if rows is None else self.source_ids[rows]
        return (source[:, None, :] == words[:, :, None]).sum(-1).clamp(min=1)
