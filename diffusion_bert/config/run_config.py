"""All settings of a training together, and what they refuse that is fine for each alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..errors import UserError, nearest
from .fields import build
from .schema import BUILT_IN_SIZES, DataConfig, DiffusionConfig, ModelConfig, TrainingConfig, check_lambda

TRAINING_SECTIONS = (ModelConfig, DataConfig, DiffusionConfig, TrainingConfig)


@dataclass
class RunConfig:
    """Everything a training run is made of; ``config.yaml`` in the run directory is its flat form."""

    model: ModelConfig
    data: DataConfig
    diffusion: DiffusionConfig
    training: TrainingConfig

    @classmethod
    def from_flat(cls, settings: dict[str, Any], origin: str = "settings") -> RunConfig:
        """Build from one flat dictionary; missing keys take their defaults.

        Raises:
            UserError: unknown key, wrong type, value out of range, or settings that contradict each other.
        """
        known = {f.name for section in TRAINING_SECTIONS for f in dataclasses.fields(section)}
        for name in settings:
            if name not in known:
                raise UserError(f"{origin}: unknown setting '{name}'{nearest(name, known)}; --help lists all of them")
        config = cls(*(build(section, settings, origin) for section in TRAINING_SECTIONS))
        from_scratch = config.model.from_scratch or config.model.model_name_or_path in BUILT_IN_SIZES
        if config.training.lr is None:
            config.training.lr = 1e-3 if from_scratch else 1e-4
        if config.model.dropout is None:
            config.model.dropout = 0.0 if from_scratch else 0.1
        config.check()
        return config

    def to_flat(self) -> dict[str, Any]:
        """One flat dictionary of plain values."""
        sections = (self.model, self.data, self.diffusion, self.training)
        return {f.name: getattr(section, f.name) for section in sections for f in dataclasses.fields(section)}

    def check(self) -> None:
        """Refuse settings that are fine alone but not together."""
        check_lambda(self.diffusion.word_freq_lambda)
        self._check_lengths()
        self._check_sources()
        self._check_loss()

    def _check_lengths(self) -> None:
        """Lengths, shares and batches."""
        data = self.data
        if data.max_target_length + 4 > data.max_length:
            raise UserError(
                f"max_target_length is {data.max_target_length} but max_length is {data.max_length}: leave at least 4"
                " places for the source"
            )
        if data.source_dropout + data.continue_share > 1:
            raise UserError(
                f"source_dropout {data.source_dropout} + continue_share {data.continue_share} is over 1: they are"
                " shares of the same examples"
            )
        longest = data.max_length + (data.noise_draws - 1) * (data.max_target_length + 1)
        if data.tokens_per_batch is not None and data.tokens_per_batch < longest:
            draws = f" with {data.noise_draws} targets beside it (noise_draws)" if data.noise_draws > 1 else ""
            raise UserError(
                f"tokens_per_batch is {data.tokens_per_batch} but an example may take {longest} places (max_length"
                f" {data.max_length}{draws}): it would not fit into a batch"
            )
        for name, needed in (("attention", "isolated"), ("timestep", "none")):
            if data.noise_draws > 1 and getattr(self.model, name) != needed:
                raise UserError(
                    f"noise_draws is {data.noise_draws} with {name} {getattr(self.model, name)}: several noised targets"
                    f" share a source only with --{name} {needed}; set that, or --noise_draws 1"
                )

    def _check_sources(self) -> None:
        """Where the data comes from."""
        data = self.data
        if "," in data.task_name and (data.train_file or data.valid_file or data.test_file or data.dataset_name):
            raise UserError(
                f"task_name is {data.task_name} with a file or dataset: several tasks take --data_dir DIR with a folder"
                " for each, DIR/TASK"
            )
        if data.task_balance != "proportional" and "," not in data.task_name:
            raise UserError(
                f"task_balance is {data.task_balance} but there is one task, {data.task_name}: name several with"
                " commas, or drop it"
            )
        if data.data_dir and data.train_file:
            raise UserError("--data_dir and --train_file both given: expected one of them; drop the other")
        if data.dataset_name and (data.data_dir or data.train_file):
            raise UserError(
                "--dataset_name and --data_dir or --train_file both given: expected one of them; drop the other"
            )
        for name in ("dataset_config", "source_column", "target_column"):
            if getattr(data, name) is not None and not data.dataset_name:
                raise UserError(
                    f"--{name} without --dataset_name: say which dataset is meant (files have columns src and trg)"
                )
        if (data.valid_file or data.test_file) and not (data.train_file or data.data_dir):
            raise UserError(
                "--valid_file/--test_file without --train_file or --data_dir: say where the training data is"
            )

    def _check_loss(self) -> None:
        """Loss, teacher and learning rate."""
        training = self.training
        if training.loss == "ce" and training.hybrid_lambda:
            raise UserError(f"hybrid_lambda is {training.hybrid_lambda} with loss ce: it only applies to --loss nelbo")
        if training.loss == "nelbo" and training.teacher:
            raise UserError(f"teacher is {training.teacher} with loss nelbo: a bound has no teacher; use --loss ce")
        for name, off in (("label_smoothing", 0.0), ("loss_weighting", "none")):
            if training.loss == "nelbo" and getattr(training, name) != off:
                raise UserError(
                    f"{name} is {getattr(training, name)} with loss nelbo: a bound is neither smoothed nor weighted;"
                    " use --loss ce"
                )
        if training.ema_decay >= 1:
            raise UserError(
                f"ema_decay is {training.ema_decay:g}: expected 0 (off) or a number below 1, for example 0.999"
            )
        if training.lr * training.lr_factor == 0:
            raise UserError(
                f"lr x lr_factor is {training.lr:g} x {training.lr_factor:g}: expected a positive learning rate, for"
                " example 5e-4"
            )
