"""The training loop, step by step. It prints nothing; a :class:`Reporter` listens."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from dataclasses import fields

import torch

from ..machine.seeds import seed_of
from ..model.heads import FIRST_PASS_SHARE
from .flops import training_flops
from .interruption import enough_memory, signals_caught
from .log import PendingStep
from .noising import NoisedBatch, StepShare, draw_times, low_noise_times, noised, step_shares
from .objective import NelboTerms, nelbo_terms, training_loss
from .optimizer import warmup_then_decay
from .run import TrainingRun
from .state import TrainingResult, stop_reason

MOST_DEMONSTRATIONS = 10  # of a run that is not told how often


class Trainer(TrainingRun):
    """A training run that trains; arguments as in :class:`TrainingRun`."""

    # ---- the loop ---------------------------------------------------------------------------------------------------

    def fit(self) -> TrainingResult:
        """Train to the end, or until a limit, patience, SIGINT, SIGTERM or SIGHUP; best_model.pt and last.pt are left
        in the run directory, last.pt from before the first validation on.
        """
        state, training = self.state, self.training
        if state.finished:  # killed after its last step: only the results are to be written
            return TrainingResult(state, state.stopped_by)
        self.started = time.monotonic() - state.seconds
        self.reporter.start(self.total_steps, state.step)
        reason = None
        try:
            with signals_caught(self._stop), enough_memory(self.config, self.device):
                if state.step == 0 and self.last_validation != 0:
                    torch.manual_seed(training.seed)
                    self.save_last()  # the first validation may take minutes: whoever kills it can resume it too
                    self.validate()
                    self.save_last()
                while reason is None:
                    for share in self._shares_of_epoch():
                        self.step(share)
                        reason = self._after_step(share)
                        if reason is not None:
                            break
                state.finished = reason != "interrupted"
                state.stopped_by = reason if state.finished else ""
                if state.finished and self.last_validation != state.step:
                    self.validate()
                self.save_last()
                if state.finished:
                    self._demonstrate()
        finally:
            self.reporter.stop()
        return TrainingResult(state, reason, self.agreed_signal)

    def _shares_of_epoch(self) -> Iterator[StepShare]:
        """This process's shares of the steps that are left of the current epoch."""
        batches, workers, pin = (
            self._epoch_batches(self.state.epoch),
            self.config.data.num_workers,
            self.device.type == "cuda",
        )
        return step_shares(batches, self.state.batch, self.state.group_size, self.processes, workers, pin)

    def _after_step(self, share: StepShare) -> str | None:
        """Log, validate, demonstrate and save where that is due; the reason why training ends here, or None."""
        state, training = self.state, self.training
        state.batch = share.end
        epoch_ended = state.batch == len(self._epoch_batches(state.epoch))
        if epoch_ended:
            state.epoch, state.batch = state.epoch + 1, 0
        # every process hears of a signal that reached any of them, and goes by the clock of the first
        everyone = self.processes.gather([float(self.stop_signal or 0), time.monotonic() - self.started])
        self.agreed_signal = int(max(row[0] for row in everyone)) or None
        state.seconds = everyone[0][1]
        if state.step % training.logging_steps == 0:
            self.log.write_averages(self.epochs_done())
        if epoch_ended or (training.eval_steps and state.step % training.eval_steps == 0):
            self.validate()
        if epoch_ended and training.keep_checkpoints:
            self.save_epoch()
        reason = stop_reason(state, training, self.total_steps, self.agreed_signal)
        if reason is None and (epoch_ended or state.step % training.save_steps == 0):
            self.save_last()
        if reason is None:
            self._demonstrate()
        return reason

    def _demonstrate(self) -> None:
        """A demonstration, when all is saved and if one is due: every ``demonstration_steps``, or after an epoch, at
        most ``MOST_DEMONSTRATIONS`` in a run.
        """
        every, state = self.training.demonstration_steps, self.state
        gap = math.ceil(self.training.epochs / MOST_DEMONSTRATIONS)
        if state.step % every == 0 if every is not None else state.batch == 0 and state.epoch % gap == 0:
            self.log.read()
            with self.averaged():
                self.reporter.demonstration(state.step)

    def step(self, share: StepShare) -> None:
        """One optimizer step of all processes together; the ``share`` holds this one's micro-batches, possibly none."""
        state, training, denoiser = self.state, self.training, self.model.denoiser
        num_steps, correction = self.config.diffusion.num_steps, self.config.diffusion.time_correction
        prepared, two_pass = self._noised(share)
        flops = sum(training_flops(denoiser, *p.x_t.shape, p.batch.source_width, p.masked) for p in prepared)
        own = [sum(p.masked for p in prepared), sum(p.tokens for p in prepared), flops, time.monotonic() - self.started]
        everyone = self.processes.gather(own)
        masked, tokens, flops, _ = map(sum, zip(*everyone))
        self.elapsed = everyone[0][3]
        denoiser.train()
        measured = torch.zeros(len(fields(NelboTerms)) + 1, dtype=torch.float64, device=self.device)  # terms, loss
        with self.autocast():  # once around all micro-batches: their weights are taken to bf16 once
            for part in prepared:
                noisy = (part.batch, part.x_t, part.t, num_steps)
                terms = nelbo_terms(
                    denoiser,
                    self.diffusion,
                    *noisy,
                    correction,
                    self.loss_options,
                    two_pass,
                    part.places,
                    part.time_weight,
                )
                loss = training_loss(terms, training.loss, training.hybrid_lambda, masked, tokens)
                with torch.autocast(self.device.type, enabled=False):
                    loss.backward()
                measured += torch.cat([terms.stacked(), loss.detach().double()[None]])
        if self.gradients is not None:
            self.processes.sum_(self.gradients)
        self.processes.sum_(measured)
        norm = torch.nn.utils.get_total_norm([p.grad for p in denoiser.parameters() if p.grad is not None])
        lr = training.lr * training.lr_factor * self.learning_rate_factor()
        measured = torch.cat([measured, norm.double()[None]])
        step = PendingStep(state.step, measured, lr, share.examples, int(tokens), flops)
        if self.device.type == "cpu":
            self.log.check(step, *step.measured[-2:].tolist())  # before the weights change
        self._update_weights(lr, norm)
        state.step += 1
        step.progress = self.progress()
        self.log.add(step)

    # ---- parts of a step --------------------------------------------------------------------------------------------

    def _noised(self, share: StepShare) -> tuple[list[NoisedBatch], bool]:
        """The batches of a share with their noise, and whether self-conditioning makes a first pass in this step.

        All chance is keyed by the step, and noise also by the example's number in it: neither a resume, nor validation
        in between, nor the cut into micro-batches and processes changes it.
        """
        num_steps, key = self.config.diffusion.num_steps, seed_of(self.state.step, self.training.seed)
        generator = torch.Generator().manual_seed(key)
        times = draw_times(share.examples, self.config.data.noise_draws, num_steps, generator)
        two_pass = self.config.model.self_conditioning and bool(torch.rand((), generator=generator) < FIRST_PASS_SHARE)
        torch.manual_seed((4096 * key + self.processes.rank) % 2**63)  # dropout
        low_share = self.config.data.low_noise_share
        chosen = torch.rand(share.examples, generator=generator) < low_share if low_share else None
        prepared = []
        for batch, start in zip(share.batches, share.starts):
            own, weight = times[start : start + len(batch)], None
            if chosen is not None:
                low = (chosen[start : start + len(batch)], batch.without_source, low_share, self.low_noise_steps)
                own, weight = low_noise_times(own, *low, num_steps)
            prepared.append(noised(batch, own, num_steps, self.host_diffusion, key, start, self.device, weight))
        return prepared, two_pass

    def _update_weights(self, lr: float, norm: torch.Tensor) -> None:
        """Clip to ``max_grad_norm``, take the optimizer's step, and forget the gradients."""
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = lr
        # clipping: the fused step divides as it reads, which spares a pass over all gradients
        self.optimizer.grad_scale = (norm / (self.training.max_grad_norm or math.inf)).clamp(min=1.0).float()
        self.optimizer.step()
        self.optimizer.zero_grad() if self.gradients is None else self.gradients.zero_()
        if self.average is not None:
            self.average.update()

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

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Finish the step and save, as if this signal had come."""
        self.stop_signal = self.stop_signal or number

    def _stop(self, number: int) -> None:
        """A signal: finish the step and save; the second one stops at once (torchrun passes signals on, so a second one
        is usual there, and a closed terminal sends SIGHUP more than once).
        """
        by_hand = (signal.SIGINT, signal.SIGTERM)
        if self.stop_signal in by_hand and number in by_hand and self.processes.size == 1:
            raise KeyboardInterrupt
        self.stop(number)
