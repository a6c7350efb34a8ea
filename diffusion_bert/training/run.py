"""A training run without its loop: what belongs to it, and how it is validated, saved and restored."""

from __future__ import annotations

import contextlib
import math
import os
import time

from ..config.run_config import RunConfig
from ..data.batching import EpochBatches
from ..errors import UserError
from ..machine.device import pick_device
from ..machine.precision import decide_precision
from ..machine.processes import Processes, flat_gradients, own_device
from ..machine.storage import remove_leftovers
from ..model.checkpoint import save_checkpoint
from ..model.diffusion_model import DiffusionModel
from .distillation import Teacher
from .flops import product_shapes
from .interruption import random_state, restore_random_state
from .log import TrainingLog
from .noising import low_noise_steps, on_host
from .objective import LossOptions
from .optimizer import WeightAverage, make_optimizer
from .run_directory import RunDirectory
from .state import Reporter, Shielded, TrainingData, TrainingState
from .yardstick import measure


class TrainingRun:
    """One training run: its model, data, optimizer and state, and how these are validated, saved and restored.

    Args:
        model: what to train, already with its schedule.
        data: encoded training data and fixed validation batches.
        run: where checkpoints and metrics go.
        reporter: gets steps, validations and demonstrations.
        resume: the ``training`` part of a last.pt, or None for a fresh start.
        processes: those that train together; each holds the whole model and the whole plan of batches, and takes its
            share of every step.
        teacher: whom the model learns from besides the data.
    """

    def __init__(
        self,
        model: DiffusionModel,
        data: TrainingData,
        run: RunDirectory,
        reporter: Reporter | None = None,
        resume: dict | None = None,
        processes: Processes | None = None,
        teacher: Teacher | None = None,
    ):
        self.config: RunConfig = model.config
        self.training = self.config.training
        self.processes, self.teacher = processes or Processes(), teacher
        self.loss_options = LossOptions(
            self.training.loss == "nelbo", self.training.label_smoothing, self.training.loss_weighting, teacher
        )
        self.device = pick_device(own_device(self.training.device))
        self.model, self.data, self.run = model.to(self.device), data, run
        self._synchronise()
        self.diffusion = model.diffusion
        self.host_diffusion = on_host(self.diffusion)
        self.low_noise_steps = low_noise_steps(self.host_diffusion.schedule, self.config.diffusion.num_steps)
        self.reporter = Shielded(reporter or Reporter())
        decided = None if resume is None else resume.get("precision", "fp32" if self.device.type == "cpu" else None)
        self.precision = self.processes.on_main(
            lambda: decide_precision(self.training.precision, self.device, product_shapes(model.denoiser), decided)
        )
        self.autocast = self.precision.autocast
        self.optimizer = make_optimizer(model.denoiser, self.training.lr, self.training.weight_decay)
        self.state = TrainingState(group_size=self.training.accumulation_steps * self.processes.size)
        self.stop_signal = self.agreed_signal = (
            None  # the signal that reached this process, and that reached any of them
        )
        self.started, self.elapsed = time.monotonic(), 0.0
        self.average = WeightAverage(model.denoiser, self.training.ema_decay) if self.training.ema_decay else None
        self.last_validation = -1
        self.started_in = os.path.relpath(".", run.path)  # what relative paths of the settings begin at
        self._cached_epoch: tuple[int, EpochBatches] | None = None
        if resume is not None:
            self._restore(resume)
        self.log = TrainingLog(run, self.state, self.reporter, self.processes.is_main, self.training.tensorboard)
        # with tokens_per_batch, epochs differ in their number of batches
        epochs = range(self.training.epochs if self.config.data.tokens_per_batch else 1)
        steps = [math.ceil(len(self._epoch_batches(epoch)) / self.state.group_size) for epoch in reversed(epochs)]
        self.steps_per_epoch = steps[-1]
        self.total_steps = sum(steps) * self.training.epochs // len(steps)
        if self.training.max_steps is not None:
            self.total_steps = min(self.total_steps, self.training.max_steps)

    @staticmethod
    def refuse_unfit(model: DiffusionModel) -> None:
        """Refuse what cannot be trained on this machine, before anything is written: device, precision, TensorBoard."""
        training = model.config.training
        device = pick_device(own_device(training.device))
        decide_precision(training.precision, device, product_shapes(model.denoiser))
        TrainingLog.check_tensorboard(training.tensorboard)
        model.to(device)

    def _synchronise(self) -> None:
        """All processes start from the same data and weights, with gradients that are summed in one go."""
        if self.processes.broadcast(self.data.fingerprint) != self.data.fingerprint:
            raise UserError("the processes read different training data: give every node the same files")
        self.processes.broadcast_(parameter.data for parameter in self.model.denoiser.parameters())
        # a step of self-conditioning leaves some weights without a gradient: zero in every process, not none in some
        flat = self.processes.size > 1 or self.config.model.self_conditioning
        self.gradients = flat_gradients(self.model.denoiser.parameters()) if flat else None

    def averaged(self) -> contextlib.AbstractContextManager:
        """Within this block the network has its averaged weights, if ``ema_decay`` asks for an average."""
        return self.average.in_place() if self.average is not None else contextlib.nullcontext()

    def validate(self) -> dict:
        """The fixed NELBO of the (averaged) weights, which best_model.pt keeps; each process takes its share of the
        batches.

        Returns the record that was logged.
        """
        self.log.read()
        with self.averaged():
            return self._validate()

    def _validate(self) -> dict:
        state, processes = self.state, self.processes
        self.reporter.validating()
        values = measure(self.model, self.data, self.device, processes)
        improved = values["valid_nelbo"] < state.best_nelbo
        state.bad_validations = 0 if improved else state.bad_validations + 1
        self.last_validation = state.step
        if improved:
            state.best_nelbo, state.best_step = values["valid_nelbo"], state.step
        record = {"kind": "validation", "step": state.step, "epoch": round(self.epochs_done(), 4), **values}
        self.log.write(record)
        if improved:
            self.model.metrics = {**record, "train_seconds": state.seconds}
            if processes.is_main:
                save_checkpoint(self.run.best, self.model)
        self.reporter.validation(record, improved)
        return record

    def epochs_done(self) -> float:
        return self.state.epoch + self.state.batch / max(1, len(self._epoch_batches(self.state.epoch)))

    def save_last(self) -> None:
        """last.pt: the model and all that a resume needs."""
        self.log.read()  # stops before anything that is not finite is saved
        training = {
            "state": dict(vars(self.state)),
            "optimizer": self.optimizer.state_dict(),
            "rng": random_state(self.device),
            "data_fingerprint": self.data.fingerprint,
            "precision": self.precision.name,
            "started_in": self.started_in,
        }
        if self.average is not None:
            training["average"] = self.average.state()
        if self.processes.is_main:
            save_checkpoint(self.run.last, self.model, training)
            state = self.state
            interrupted = state.step > 0 and self.agreed_signal is not None
            self.run.note_state(state.step, state.best_step, state.finished, interrupted)

    def save_epoch(self) -> None:
        """epoch_<n>.pt for the epoch that just ended; only then is the oldest of ``keep_checkpoints`` removed."""
        self.log.read()
        if self.processes.is_main:
            with self.averaged():
                save_checkpoint(self.run.epoch(self.state.epoch), self.model)
            self.run.remove_epochs(self.state.epoch - self.training.keep_checkpoints)

    def _restore(self, saved: dict) -> None:
        if saved["data_fingerprint"] != self.data.fingerprint:
            raise UserError(
                "the training data has changed since this run was interrupted: put it back (or say where it lies now"
                " with --train_file or --data_dir), or start a new run with --checkpoint instead"
            )
        self.state = TrainingState(**saved["state"])
        self.started_in = saved.get("started_in", self.started_in)
        # other processes than before share the same steps
        self.state.group_size = self.state.group_size or self.training.accumulation_steps
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average is not None:
            self.average.restore(saved["average"])
        restore_random_state(saved["rng"], self.device)
        if self.processes.is_main:
            remove_leftovers(self.run.path)
            self.state.metrics_lines = self.run.cut_metrics(self.state.metrics_lines)
        # killed in its first validation: that is still to be made
        validated = self.state.batch == 0 and (self.state.step > 0 or self.state.metrics_lines > 0)
        self.last_validation = self.state.step if validated else -1

    def _epoch_batches(self, epoch: int) -> EpochBatches:
        if self._cached_epoch is None or self._cached_epoch[0] != epoch:
            config, training = self.config.data, self.training
            batches = EpochBatches(
                self.data.train, self.data.collator, config, training.batch_size, training.seed, epoch
            )
            self._cached_epoch = (epoch, batches)
        return self._cached_epoch[1]
