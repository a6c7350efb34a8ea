"""What can be set: the settings as dataclasses, the tasks, the presets, and where configs and checkpoints are found.

It reads YAML and checks values. It never loads torch, so that ``--help`` and the refusal of a wrong flag are instant.
"""

from .fields import build, check_value, option
from .paths import checkpoint_file, latest_checkpoint, report_folder
from .presets import load_preset, load_settings
from .run_config import RunConfig
from .schema import DataConfig, DiffusionConfig, DisplayConfig, ModelConfig, SamplingConfig, TrainingConfig
from .tasks import TASKS, Task, task_names

__all__ = [
    "TASKS",
    "DataConfig",
    "DiffusionConfig",
    "DisplayConfig",
    "ModelConfig",
    "RunConfig",
    "SamplingConfig",
    "Task",
    "TrainingConfig",
    "build",
    "check_value",
    "checkpoint_file",
    "latest_checkpoint",
    "load_preset",
    "load_settings",
    "option",
    "report_folder",
    "task_names",
]
