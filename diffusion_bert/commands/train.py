"""``run_conditional_training.py``: train a model from a preset, flags, or a menu."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..config.presets import load_preset
from ..config.run_config import RunConfig
from ..errors import UserError
from ..machine.streams import outlive_reader
from .cli import settings_of, training_parser
from .questions import ask_settings, choose
from .terminal import say

PRESETS = ("quick_demo", "fast_training", "deep_training", "qqp_bert_base", "general_english")
FOR_CONTINUING = (
    "quality_boost",
    "deep_training_continue",
    "fine_tuning",
    "general_english_continue",
    "everyday_english",
)
MENU = (
    ("Quick Demo", "the bundled sample, from scratch, a few minutes on two cores"),
    ("Fast Training", "Quora questions, a small model from scratch, 45 minutes on a CPU"),
    ("Deep Training", "Quora questions, a larger model, a night on a CPU"),
    ("Custom", "asks for the main settings, with defaults shown"),
)
CUSTOM = tuple(
    "task_name data_dir train_file model_name_or_path max_samples num_steps word_freq_lambda epochs max_minutes"
    " batch_size lr seed device output_dir".split()
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, ask if nothing was given, train."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = training_parser("Train a conditional masked-diffusion BERT. Without arguments: a menu.", PRESETS)
    given = parser.parse(arguments)
    outlive_reader()
    if given.get("preset") in FOR_CONTINUING:
        raise UserError(f"preset {given['preset']} is for continue_training.py: expected one of {', '.join(PRESETS)}")
    preset = given.get("preset")
    settings = settings_of(given) if arguments else ask_for_settings()
    if not arguments:  # what the menu chose
        preset = next((name for name in PRESETS if load_preset(name).items() <= settings.items()), None)
    config = RunConfig.from_flat(settings)
    made_of = "" if preset is None else f" (preset {preset})"
    say(f"Training {config.model.model_name_or_path} on {config.data.task_name}{made_of}")
    from .training_run import train_run

    return train_run(config, preset=preset)


def ask_for_settings() -> dict:
    """The menu of a start without arguments."""
    choice = choose("What shall be trained?", MENU)
    if choice == 3:
        given = {name: value for name, value in ask_settings(CUSTOM, {}).items() if value is not None}
        if "train_file" in given and given["task_name"] == "sample":
            given["task_name"] = "custom"
        return given
    settings = load_preset(PRESETS[choice])
    if settings.get("task_name", "sample") != "sample":
        say(
            f"The data of task {settings['task_name']}: a folder with train.jsonl and valid.jsonl, or none to download"
            " it from the hub."
        )
        settings |= ask_settings(["data_dir"], settings)
    return settings
