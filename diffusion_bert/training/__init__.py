"""The training loop and what it needs: objective, noising, optimizer, distillation, interruption, log, run directory.

It never prints and never parses flags: a ``Reporter`` listens, and the commands above decide what is shown.
"""

from .distillation import Teacher, load_teacher, teacher_of
from .objective import NelboTerms, nelbo_terms, training_loss
from .optimizer import WeightAverage, make_optimizer
from .preparation import encode_training_data
from .run_directory import RunDirectory
from .state import Reporter, TrainingData, TrainingResult, TrainingState
from .trainer import Trainer
from .yardstick import estimate_nelbo

__all__ = [
    "NelboTerms",
    "Reporter",
    "RunDirectory",
    "Teacher",
    "Trainer",
    "TrainingData",
    "TrainingResult",
    "TrainingState",
    "WeightAverage",
    "encode_training_data",
    "estimate_nelbo",
    "load_teacher",
    "make_optimizer",
    "nelbo_terms",
    "teacher_of",
    "training_loss",
]
