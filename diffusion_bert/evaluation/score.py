"""The benchmark score: 0 to 100 points from measured numbers, a verdict, a level, and what is missing for the next one.

    generation     = 80 (iBLEU - floor) / (strong - floor)
    reconstruction = 80 (accuracy - floor) / (60 - floor)
    score          = 0.7 generation + 0.3 reconstruction

The floor of generation is the better of copying the source and the unigram filler. The accuracy of reconstruction is
that at 50 % corruption, in percent, and its floor always the most common word piece. Both parts are cut off at 0 and
100.

iBLEU = 0.8 BLEU(reference, output) - 0.2 BLEU(source, output) punishes copying. ``strong`` is the iBLEU of a named
system of the task.
"""

from __future__ import annotations

from dataclasses import dataclass

STRONG_ACCURACY = 60.0
FAIR, GOOD = 40.0, 60.0  # points from which a score is called so
FEW_PAIRS = 50  # a score from fewer says little
DEFAULT_GAP = 10.0  # iBLEU above the floor that counts as strong where no system is known

# (name, iBLEU) per task; where each comes from stands in docs/decisions.md. The data of QT, wiki_alignment and CC is
# not that of any published table, so no system is known for them.
ANCHORS: dict[str, tuple[str, float]] = {
    "sample": ("the grammar itself, choosing another frame at random", 31.8),
    "qqp": ("RDM-absorbing with MBR 10, BLEU 25.1, at an assumed source overlap of 50", 10.1),
}


@dataclass
class Score:
    """``points`` 0 to 100 with its two parts, ``verdict`` Good / Fair / Poor, ``level`` none / Bronze / Silver / Gold,
    and ``missing`` for the next level."""

    points: float
    generation: float
    reconstruction: float
    ibleu: float
    accuracy: float
    accuracy_floor: float
    floor: float
    strong: float
    strong_name: str
    verdict: str
    level: str
    missing: list[str]

    def formula(self) -> str:
        """The arithmetic, with the numbers put in."""
        strong = max(STRONG_ACCURACY, self.accuracy_floor + 1)
        return (
            f"{self.points:.1f} = 0.7 x {self.generation:.1f} + 0.3 x {self.reconstruction:.1f}\n  generation    "
            f" {self.generation:.1f} = 80 x (iBLEU {self.ibleu:.1f} - floor {self.floor:.1f}) / ({self.strong:.1f} -"
            f" {self.floor:.1f}); {self.strong:.1f} is {self.strong_name}\n  reconstruction {self.reconstruction:.1f} ="
            f" 80 x (accuracy {self.accuracy:.1f} - floor {self.accuracy_floor:.1f}) / ({strong:.1f} -"
            f" {self.accuracy_floor:.1f}), at 50 % corruption; both parts cut off at 0 and 100"
        )


def says_little(pairs: int) -> bool:
    """Whether a score from so many pairs is too uncertain for a verdict."""
    return pairs < FEW_PAIRS


def anchored(value: float, floor: float, strong: float) -> float:
    """0 at the floor, 80 at the strong system, cut off at 0 and 100."""
    return min(100.0, max(0.0, 80.0 * (value - floor) / max(strong - floor, 1e-9)))


def benchmark_score(
    task: str, rows: dict[str, dict], reconstruction: dict[str, dict], long_rouge: float | None, long_words: float
) -> Score:
    """The score from the tables of an evaluation.

    Args:
        task: task name, chooses the anchor.
        rows: metric rows by name; ``model``, ``one sample`` (for its div-4), ``copy`` and ``unigram`` must be there.
        reconstruction: by corruption in percent ("20", "50", "80"): ``accuracy`` and ``floor``.
        long_rouge: ROUGE-L of the model on the longest quarter of the sources, None when there is none.
        long_words: mean length of these sources in words.
    """
    model = rows["model"]
    floor = max(rows["copy"]["ibleu"], rows["unigram"]["ibleu"])
    name, strong = ANCHORS.get(
        task, (f"floor + {DEFAULT_GAP:g}, as no system is known for this data", floor + DEFAULT_GAP)
    )
    if strong <= floor:
        name, strong = (
            f"floor + {DEFAULT_GAP:g}, as the floor of this data lies above the task's anchor",
            floor + DEFAULT_GAP,
        )
    generation = anchored(model["ibleu"], floor, strong)
    middle = reconstruction["50"]
    restored = anchored(middle["accuracy"], middle["floor"], max(STRONG_ACCURACY, middle["floor"] + 1))
    points = 0.7 * generation + 0.3 * restored
    verdict = "Good" if points >= GOOD else "Fair" if points >= FAIR else "Poor"
    accuracy, div4 = reconstruction["20"]["accuracy"], rows["one sample"]["div4"]
    level, missing = _level(points, generation, model, div4, accuracy, long_rouge, long_words)
    return Score(
        points,
        generation,
        restored,
        model["ibleu"],
        middle["accuracy"],
        middle["floor"],
        floor,
        strong,
        name,
        verdict,
        level,
        missing,
    )


def _level(
    points: float,
    generation: float,
    model: dict,
    div4: float,
    accuracy: float,
    long_rouge: float | None,
    long_words: float,
) -> tuple[str, list[str]]:
    """The highest level whose criteria, and those of all below, are met; and the criteria of the next one that are
    not. No level says more than the verdict: Silver needs Fair, Gold needs Good.
    """
    criteria = {
        "Bronze": [(accuracy >= 35, f"accuracy at 20 % corruption {accuracy:.1f} %, needs 35")],
        "Silver": [
            (points >= FAIR, f"score {points:.1f}, needs {FAIR:g} (Fair)"),
            (
                generation >= 40,
                f"generation {generation:.1f} points, needs 40 (half way from the floor to the strong system)",
            ),
            (model["overlap"] <= 60, f"overlap with the source {model['overlap']:.1f}, needs at most 60"),
            (div4 >= 40, f"div-4 over three samples {div4:.1f}, needs 40"),
        ],
        "Gold": [
            (points >= GOOD, f"score {points:.1f}, needs {GOOD:g} (Good)"),
            (
                long_words >= 12,
                (
                    f"the longest quarter of the sources has {long_words:.1f} words on average, needs 12 to speak of"
                    " long context"
                ),
            ),
            (
                long_rouge is not None and long_rouge >= 0.9 * model["rouge_l"],
                (
                    f"ROUGE-L on the longest quarter {long_rouge or 0:.1f}, needs 90 % of the overall"
                    f" {model['rouge_l']:.1f}"
                ),
            ),
            (model["repetition"] <= 1.0, f"repeated neighbours {model['repetition']:.2f} %, needs at most 1"),
        ],
    }
    reached = "none"
    for level, checks in criteria.items():
        missing = [f"{level}: {text}" for met, text in checks if not met]
        if missing:
            return reached, missing
        reached = level
    return reached, []
