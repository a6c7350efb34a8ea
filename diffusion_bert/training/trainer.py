"""The training loop: steps, validation by the NELBO, checkpoints, resume. It prints nothing; a :class:`Reporter`
listens.
"""

from __future__ import annotations

import contextlib
import math
import time
from itertools import accumulate

import torch

from ..config.schema import RunConfig
from ..data.batch import Batch
from ..data.batching import EpochBatches
from ..errors import UserError
from ..machine.device import choose_autocast, pick_device
from ..machine.processes import Processes, flat_gradients, own_device
from ..machine.seeds import seed_of
from ..machine.storage import remove_leftovers
from ..model.checkpoint import save_checkpoint
from ..model.diffusion_model import DiffusionModel
from ..model.heads import FIRST_PASS_SHARE
from .distillation import Teacher
from .flops import training_flops
from .interruption import enough_memory, random_state, restore_random_state, signals_caught
from .log import PendingStep, TrainingLog, measure
from .noising import draw_times, noised, on_host, step_shares
from .objective import NelboTerms, nelbo_terms, training_loss
from .optimizer import WeightAverage, make_optimizer, warmup_then_decay
from .run_directory import RunDirectory
from .state import Reporter, TrainingData, TrainingResult, TrainingState, stop_reason


class Trainer:
    """One training run.

    Args:
        model: what to train, already with its schedule.
        data: encoded training data and fixed validation batches.
        run: where checkpoints and metrics go.
        reporter: told about steps, validations and demonstrations.
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
        self.device = pick_device(own_device(self.training.device))
        self.model, self.data, self.run = model.to(self.device), data, run
        self._meet()
        self.diffusion = model.diffusion
        self.host_diffusion = on_host(self.diffusion)
        self.reporter = reporter or Reporter()
        self.autocast = choose_autocast(self.training.precision, self.device)
        self.optimizer = make_optimizer(model.denoiser, self.training.lr, self.training.weight_decay)
        self.state = TrainingState(group_size=self.training.accumulation_steps * self.processes.size)
        self.stop_signal = self.agreed_signal = None  # the signal that this process, and that any of them, was told
        self.started, self.elapsed = time.monotonic(), 0.0
        self.average = WeightAverage(model.denoiser, self.training.ema_decay) if self.training.ema_decay else None
        self.last_validation = -1
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

    def _meet(self) -> None:
        """All processes start from the same data and weights, with gradients that are summed in one go."""
        if self.processes.broadcast(self.data.fingerprint) != self.data.fingerprint:
            raise UserError("the processes read different training data: give every node the same files")
        self.processes.same_(parameter.data for parameter in self.model.denoiser.parameters())
        # a step of self-conditioning leaves some weights without a gradient: zero in every process, not none in some
        flat = self.processes.size > 1 or self.config.model.self_conditioning
        self.gradients = flat_gradients(self.model.denoiser.parameters()) if flat else None

    # ---- the loop ---------------------------------------------------------------------------------------------------

    def fit(self) -> TrainingResult:
        """Train to the end, or until a limit, patience, SIGINT or SIGTERM; best_model.pt and last.pt are left in the
        run directory.
        """
        state, training = self.state, self.training
        if state.finished:  # killed after its last step: only the results are to be written
            return TrainingResult(state, state.stopped_by)
        self.started = time.monotonic() - state.seconds
        self.reporter.start(self.total_steps, state.step)
        reason = None
        try:
            with signals_caught(self._stop), enough_memory(self.config, self.device):
                if state.step == 0:
                    torch.manual_seed(training.seed)
                    self.validate()
                while reason is None:
                    reason = self._run_epoch()
                state.finished = reason != "interrupted"
                state.stopped_by = reason if state.finished else ""
                if state.finished and self.last_validation != state.step:
                    self.validate()
                self.save_last()
        finally:
            self.reporter.stop()
        return TrainingResult(state, reason, self.agreed_signal)

    def _run_epoch(self) -> str | None:
        """Steps until the epoch ends (None) or training does (the reason)."""
        state, dataset = self.state, self._epoch_batches(self.state.epoch)
        for share in step_shares(
            dataset,
            state.batch,
            state.group_size,
            self.processes,
            self.config.data.num_workers,
            self.device.type == "cuda",
        ):
            self.step(share.batches, share.starts, share.examples)
            state.batch = share.end
            if state.batch == len(dataset):
                state.epoch, state.batch = state.epoch + 1, 0
            reason = self._after_step(epoch_ended=state.batch == 0)
            if reason is not None or state.batch == 0:
                return reason
        return None

    def _after_step(self, epoch_ended: bool) -> str | None:
        state, training = self.state, self.training
        # every process hears of a signal that reached any of them, and goes by the clock of the first
        everyone = self.processes.gather([float(self.stop_signal or 0), time.monotonic() - self.started])
        self.agreed_signal = int(max(row[0] for row in everyone)) or None
        state.seconds = everyone[0][1]
        if state.step % training.logging_steps == 0:
            self.log.write_averages(self.epochs_done())
        if epoch_ended or (training.eval_steps and state.step % training.eval_steps == 0):
            self.validate()
        if (epoch_ended and training.demonstration_steps is None) or (
            training.demonstration_steps and state.step % training.demonstration_steps == 0
        ):
            self.log.read()
            with self.averaged():
                self.reporter.demonstration(state.step)
        if epoch_ended and training.keep_checkpoints:
            self.save_epoch()
        reason = stop_reason(state, training, self.total_steps, self.agreed_signal)
        if reason is None and (epoch_ended or state.step % training.save_steps == 0):
            self.save_last()
        return reason

    def step(self, group: list[Batch], starts: list[int] | None = None, examples: int | None = None) -> None:
        """One optimizer step of all processes together; ``group`` holds this process's micro-batches, possibly none.

        starts: number of each micro-batch's first example within the step, of ``examples`` in all. Without them the
        group is the whole step.
        """
        state, training, num_steps = self.state, self.training, self.config.diffusion.num_steps
        starts = [0, *accumulate(map(len, group))][: len(group)] if starts is None else starts
        examples = examples or sum(map(len, group))
        # all chance is keyed by the step, and noise also by the example's number in it: neither a resume, nor
        # validation in between, nor the cut into micro-batches and processes changes it
        key = seed_of(state.step, training.seed)
        generator = torch.Generator().manual_seed(key)
        times = draw_times(examples, self.config.data.noise_draws, num_steps, generator)
        two_pass = self.config.model.self_conditioning and bool(torch.rand((), generator=generator) < FIRST_PASS_SHARE)
        torch.manual_seed((4096 * key + self.processes.rank) % 2**63)  # dropout
        prepared = [
            noised(batch, times[start : start + len(batch)], num_steps, self.host_diffusion, key, start, self.device)
            for batch, start in zip(group, starts)
        ]
        flops = sum(training_flops(self.model.denoiser, *p.x_t.shape, p.batch.source_width, p.masked) for p in prepared)
        own = [sum(p.masked for p in prepared), sum(p.tokens for p in prepared), flops, time.monotonic() - self.started]
        everyone = self.processes.gather(own)
        masked, tokens, flops, _ = map(sum, zip(*everyone))
        self.elapsed = everyone[0][3]
        self.model.denoiser.train()
        measured = torch.cat(
            [NelboTerms.zero(self.device).stacked(), torch.zeros(1, dtype=torch.float64, device=self.device)]
        )  # terms, loss
        for part in prepared:
            with self.autocast():
                terms = nelbo_terms(
                    self.model.denoiser,
                    self.diffusion,
                    part.batch,
                    part.x_t,
                    part.t,
                    num_steps,
                    self.config.diffusion.time_correction,
                    training.loss == "nelbo",
                    training.label_smoothing,
                    training.loss_weighting,
                    two_pass,
                    part.places,
                    self.teacher,
                )
            loss = training_loss(terms, training.loss, training.hybrid_lambda, masked, tokens)
            loss.backward()
            measured += torch.cat([terms.stacked(), loss.detach().double()[None]])
        if self.gradients is not None:
            self.processes.sum_(self.gradients)
        self.processes.sum_(measured)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.denoiser.parameters() if p.grad is not None])
        lr = training.lr * training.lr_factor * self.learning_rate_factor()
        step = PendingStep(state.step, torch.cat([measured, norm.double()[None]]), lr, examples, int(tokens), flops)
        if self.device.type == "cpu":
            self.log.check(step, *step.measured[-2:].tolist())  # before the weights change
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = lr
        # clipping: the fused step divides as it reads, which spares a pass over all gradients
        self.optimizer.grad_scale = (norm / (training.max_grad_norm or math.inf)).clamp(min=1.0).float()
        self.optimizer.step()
        self.optimizer.zero_grad() if self.gradients is None else self.gradients.zero_()
        if self.average is not None:
            self.average.update()
        state.step += 1
        step.progress = self.progress()
        self.log.add(step)

    # ---- parts ------------------------------------------------------------------------------------------------------

    def progress(self) -> float:
        """Share of training that is done, 0 to 1: by steps or by minutes, whichever limit is nearer."""
        share = self.state.step / self.total_steps
        if self.training.max_minutes:
            share = max(share, self.elapsed / (60 * self.training.max_minutes))
        return min(share, 1.0)

    def learning_rate_factor(self) -> float:
        """Linear warm-up over ``warmup_ratio`` of training, then linear decay to zero."""
        return warmup_then_decay(self.progress(), self.training.warmup_ratio, self.total_steps)

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
        }
        if self.average is not None:
            training["average"] = self.average.state()
        if self.processes.is_main:
            save_checkpoint(self.run.last, self.model, training)

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
                "the training data has changed since this run was interrupted: put it back, or start a new run with"
                " --checkpoint instead"
            )
        self.state = TrainingState(**saved["state"])
        # other processes than before share the same steps
        self.state.group_size = self.state.group_size or self.training.accumulation_steps
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average is not None:
            self.average.restore(saved["average"])
        restore_random_state(saved["rng"], self.device)
        if self.processes.is_main:
            remove_leftovers(self.run.path)
            self.state.metrics_lines = self.run.cut_metrics(self.state.metrics_lines)
        self.last_validation = self.state.step if self.state.batch == 0 else -1

    def _epoch_batches(self, epoch: int) -> EpochBatches:
        if getattr(self, "_cached_epoch", (None, None))[0] != epoch:
            batches = EpochBatches(
                self.data.train,
                self.data.collator,
                self.config.data,
                self.training.batch_size,
                self.training.seed,
                epoch,
            )
            self._cached_epoch = (epoch, batches)
        return self._cached_epoch[1]

    def _stop(self, number: int) -> None:
        """A signal: finish the step and save; the second one stops at once (torchrun passes signals on, so a second one
        is usual there).
        """
        if self.stop_signal is not None and self.processes.size == 1:
            raise KeyboardInterrupt
        self.stop_signal = number
