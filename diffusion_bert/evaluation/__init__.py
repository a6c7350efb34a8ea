"""What a model is worth: reconstruction, conditional generation beside its floors, NELBO, score, report and pictures.

It never trains and never prints: it returns numbers, Markdown and figures.
"""

from .bertscore import BertScorer
from .confidence_map import follow, plot_confidence
from .figures import plot_curves, plot_evaluation
from .fluency import FluencyJudge
from .journal import Journal
from .judges import Judge
from .meaning import MeaningJudge
from .measures import measured
from .parts import Evaluation, evaluate
from .report import markdown
from .score import Score, benchmark_score
from .systems import metric_rows
from .writing import write_outputs

__all__ = [
    "BertScorer",
    "Evaluation",
    "FluencyJudge",
    "Journal",
    "Judge",
    "MeaningJudge",
    "Score",
    "benchmark_score",
    "evaluate",
    "follow",
    "markdown",
    "measured",
    "metric_rows",
    "plot_confidence",
    "plot_curves",
    "plot_evaluation",
    "write_outputs",
]
