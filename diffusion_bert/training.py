"""The training loop: steps, validation by the NELBO, checkpoints, resume. It prints nothing; a :class:`Reporter` listens."""

from __future__ import annotations

import contextlib
import math
import time

import torch
from torch.utils.data import DataLoader

from .checkpoint import RunDirectory, save_checkpoint
from .config import RunConfig
from .data import EpochBatches
from .ema import WeightAverage
from .errors import UserError
from .layout import Batch
from .model import DiffusionModel, choose_autocast, pick_device
from .objective import NelboTerms, estimate_nelbo, nelbo_terms, sample_times, training_loss
from .self_conditioning import SHARE
from .storage import remove_leftovers
from .training_state import Reporter, TrainingData, TrainingResult, TrainingState, random_state, restore_random_state, signals_caught

VALIDATION_EXAMPLES = 1024  # the yardstick uses at most this many, evenly spread over the validation data


class Trainer:
    """One training run.

    Args:
        model: what to train, already with its schedule.
        data: encoded training data and fixed validation batches.
        run: where checkpoints and metrics go.
        reporter: told about steps, validations and demonstrations.
        resume: the ``training`` part of a last.pt, or None for a fresh start.
    """

    def __init__(self, model: DiffusionModel, data: TrainingData, run: RunDirectory, reporter: Reporter | None = None, resume: dict | None = None):
        self.config: RunConfig = model.config
        self.training = self.config.training
        self.device = pick_device(self.training.device)
        self.model, self.data, self.run = model.to(self.device), data, run
        self.diffusion = model.diffusion
        self.reporter = reporter or Reporter()
        self.autocast = choose_autocast(self.training.precision, self.device)
        decayed = [p for p in model.denoiser.parameters() if p.ndim > 1]
        plain = [p for p in model.denoiser.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": self.training.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=self.training.lr, betas=(0.9, 0.98), fused=self.device.type in ("cpu", "cuda"))
        self.average = WeightAverage(model.denoiser, self.training.ema_decay) if self.training.ema_decay else None
        self.state = TrainingState()
        self.stop_signal: int | None = None
        self.started = time.monotonic()
        self.last_validation = -1
        # with tokens_per_batch, epochs differ in their number of batches
        epochs = range(self.training.epochs if self.config.data.tokens_per_batch else 1)
        steps = [math.ceil(len(self._epoch_batches(epoch)) / self.training.accumulation_steps) for epoch in reversed(epochs)]
        self.steps_per_epoch = steps[-1]
        self.total_steps = sum(steps) * self.training.epochs // len(steps)
        if self.training.max_steps is not None:
            self.total_steps = min(self.total_steps, self.training.max_steps)
        if resume is not None:
            self._restore(resume)

    # ---- the loop -------------------------------------------------------------------------------------------------------------------

    def fit(self) -> TrainingResult:
        """Train to the end, or until a limit, patience, SIGINT or SIGTERM; best_model.pt and last.pt are left in the run directory."""
        state, training = self.state, self.training
        if state.finished:  # killed after its last step: only the results are to be written
            return TrainingResult(state, state.stopped_by)
        self.started = time.monotonic() - state.seconds
        self.reporter.start(self.total_steps, state.step)
        reason = None
        try:
            with signals_caught(self._stop):
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
        except torch.OutOfMemoryError:
            half = max(1, training.batch_size // 2)
            raise UserError(
                f"out of memory on {self.device} at batch size {training.batch_size}: try --batch_size {half} "
                f"--accumulation_steps {training.accumulation_steps * (training.batch_size // half)}, which trains the same, or --device cpu"
            ) from None
        finally:
            self.reporter.stop()
        return TrainingResult(state, reason, self.stop_signal)

    def _run_epoch(self) -> str | None:
        """Steps until the epoch ends (None) or training does (the reason)."""
        state, training = self.state, self.training
        dataset = self._epoch_batches(state.epoch)
        remaining = range(state.batch, len(dataset))
        # its own generator: the loader must not draw from the one that feeds dropout, or a resume would differ
        loader = DataLoader(
            dataset, batch_size=None, sampler=remaining, num_workers=self.config.data.num_workers, generator=torch.Generator(),
            pin_memory=self.device.type == "cuda",
        )  # fmt: skip
        group: list[Batch] = []
        for number, batch in zip(remaining, loader):
            group.append(batch)
            if len(group) < training.accumulation_steps and number + 1 < len(dataset):
                continue
            self.step(group)
            group = []
            state.batch = number + 1
            if state.batch == len(dataset):
                state.epoch, state.batch = state.epoch + 1, 0
            reason = self._after_step(epoch_ended=state.batch == 0)
            if reason is not None or state.batch == 0:
                return reason
        return None

    def _after_step(self, epoch_ended: bool) -> str | None:
        state, training = self.state, self.training
        state.seconds = time.monotonic() - self.started
        if state.step % training.logging_steps == 0:
            self._log()
        if epoch_ended or (training.eval_steps and state.step % training.eval_steps == 0):
            self.validate()
        if (epoch_ended and training.demonstration_steps is None) or (
            training.demonstration_steps and state.step % training.demonstration_steps == 0
        ):
            with self.averaged():
                self.reporter.demonstration(state.step)
        reason = None
        if state.step >= self.total_steps:
            reason = "max_steps" if training.max_steps is not None and state.step >= training.max_steps else "epochs"
        elif training.max_minutes is not None and state.seconds >= 60 * training.max_minutes:
            reason = "max_minutes"
        elif training.patience is not None and state.bad_validations >= training.patience:
            reason = "patience"
        elif self.stop_signal is not None:
            reason = "interrupted"
        if reason is None and (epoch_ended or state.step % training.save_steps == 0):
            self.save_last()
        return reason

    def step(self, group: list[Batch]) -> None:
        """One optimizer step over a group of micro-batches."""
        state, training, num_steps = self.state, self.training, self.config.diffusion.num_steps
        # noise is keyed by the step: neither a resume nor validation in between changes it
        generator = torch.Generator().manual_seed(training.seed * 1_000_003 + state.step)
        times = sample_times(sum(map(len, group)), num_steps, generator).split([len(batch) for batch in group])
        group = [batch.to(self.device) for batch in group]
        times = [t.to(self.device) for t in times]
        noised = [self.diffusion.q_sample(batch.input_ids, t.double() / num_steps, batch.target_mask, generator) for batch, t in zip(group, times)]
        two_pass = self.config.model.self_conditioning and bool(torch.rand((), generator=generator) < SHARE)
        masked = sum(int((x_t == batch.mask_id).sum()) for batch, x_t in zip(group, noised))
        tokens = sum(int(batch.target_length.sum()) for batch in group)
        self.model.denoiser.train()
        total: NelboTerms | None = None
        loss_value = 0.0
        for batch, t, x_t in zip(group, times, noised):
            with self.autocast():
                terms = nelbo_terms(
                    self.model.denoiser, self.diffusion, batch, x_t, t, num_steps, self.config.diffusion.time_correction, training.loss == "nelbo",
                    training.label_smoothing, training.loss_weighting, two_pass,
                )  # fmt: skip
            loss = training_loss(terms, training.loss, training.hybrid_lambda, masked, tokens)
            loss.backward()
            loss_value += float(loss.detach())
            terms = NelboTerms(*(getattr(terms, name).detach() for name in terms.__dataclass_fields__))
            total = terms if total is None else total + terms
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.denoiser.parameters(), training.max_grad_norm or math.inf))
        lr = training.lr * training.lr_factor * self.learning_rate_factor()
        if not math.isfinite(loss_value) or not math.isfinite(norm):
            self._refuse_to_go_on(loss_value, norm, lr)
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        state.step += 1
        values = {"loss": loss_value, "grad_norm": norm, "lr": lr, "examples": sum(map(len, group)), "tokens": tokens, **total.per_token()}
        self._remember(values)
        self.reporter.step(state.step, self.progress(), values)

    # ---- parts ----------------------------------------------------------------------------------------------------------------------

    def progress(self) -> float:
        """Share of training that is done, 0 to 1: by steps or by minutes, whichever limit is nearer."""
        share = self.state.step / self.total_steps
        if self.training.max_minutes:
            share = max(share, (time.monotonic() - self.started) / (60 * self.training.max_minutes))
        return min(share, 1.0)

    def learning_rate_factor(self) -> float:
        """Linear warm-up over ``warmup_ratio`` of training, then linear decay to zero."""
        done, warmup = self.progress(), self.training.warmup_ratio
        if done < warmup:
            return (done + 1 / self.total_steps) / (warmup + 1 / self.total_steps)
        return (1 - done) / (1 - warmup) if warmup < 1 else 1.0

    def averaged(self) -> contextlib.AbstractContextManager:
        """Within this block the network has its averaged weights, if ``ema_decay`` asks for an average."""
        return self.average.in_place() if self.average is not None else contextlib.nullcontext()

    def validate(self) -> dict:
        """The fixed NELBO of the (averaged) weights, which best_model.pt keeps. Returns the record that was logged."""
        with self.averaged():
            return self._validate()

    def _validate(self) -> dict:
        state = self.state
        terms = estimate_nelbo(self.model.denoiser, self.diffusion, self.data.valid, self.config.diffusion.time_correction, device=self.device)
        values = {f"valid_{name}": value for name, value in terms.per_token().items()}
        values["valid_nelbo_per_word"] = float(terms.total) / max(self.data.valid_words, 1)
        improved = values["valid_nelbo"] < state.best_nelbo
        state.bad_validations = 0 if improved else state.bad_validations + 1
        self.last_validation = state.step
        if improved:
            state.best_nelbo, state.best_step = values["valid_nelbo"], state.step
        record = {"kind": "validation", "step": state.step, "epoch": round(self.epochs_done(), 4), **values}
        self._append(record)
        if improved:
            self.model.metrics = {**record, "train_seconds": state.seconds}
            save_checkpoint(self.run.best, self.model)
        self.reporter.validation(record, improved)
        return record

    def epochs_done(self) -> float:
        return self.state.epoch + self.state.batch / max(1, len(self._epoch_batches(self.state.epoch)))

    def save_last(self) -> None:
        """last.pt: the model and all that a resume needs."""
        training = {
            "state": dict(vars(self.state)),
            "optimizer": self.optimizer.state_dict(),
            "rng": random_state(self.device),
            "data_fingerprint": self.data.fingerprint,
        }
        if self.average is not None:
            training["average"] = self.average.state()
        save_checkpoint(self.run.last, self.model, training)

    def _restore(self, saved: dict) -> None:
        if saved["data_fingerprint"] != self.data.fingerprint:
            raise UserError("the training data has changed since this run was interrupted: put it back, or start a new run with --checkpoint instead")
        self.state = TrainingState(**saved["state"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average is not None:
            self.average.restore(saved["average"])
        restore_random_state(saved["rng"], self.device)
        remove_leftovers(self.run.path)
        self.state.metrics_lines = self.run.cut_metrics(self.state.metrics_lines)
        self.last_validation = self.state.step if self.state.batch == 0 else -1

    def _remember(self, values: dict) -> None:
        window = self.state.window
        for name, value in values.items():
            window[name] = window.get(name, 0.0) + value
        window["steps"] = window.get("steps", 0) + 1
        window["since"] = window.get("since", self.state.seconds)

    def _log(self) -> None:
        """One line of averages over the steps since the last one."""
        window, state = self.state.window, self.state
        steps, since = window.pop("steps"), window.pop("since")
        record = {"kind": "train", "step": state.step, "epoch": round(self.epochs_done(), 4)}
        record |= {name: value / steps for name, value in window.items()}
        record["seconds"] = state.seconds
        record["tokens_per_second"] = window["tokens"] / max(state.seconds - since, 1e-9)
        state.window = {}
        self._append(record)

    def _append(self, record: dict) -> None:
        self.run.append_metrics(record)
        self.state.metrics_lines += 1

    def _epoch_batches(self, epoch: int) -> EpochBatches:
        if getattr(self, "_cached_epoch", (None, None))[0] != epoch:
            batches = EpochBatches(self.data.train, self.data.collator, self.config.data, self.training.batch_size, self.training.seed, epoch)
            self._cached_epoch = (epoch, batches)
        return self._cached_epoch[1]

    def _refuse_to_go_on(self, loss: float, norm: float, lr: float) -> None:
        kept = self.run.best if self.run.best.is_file() else "none yet"
        raise UserError(
            f"training stopped at step {self.state.step}: the loss is {loss:g} and the gradient norm {norm:g} at learning rate {lr:.2g}; "
            f"the last good checkpoint is {kept}; try a smaller --lr or --max_grad_norm"
        )

    def _stop(self, number: int) -> None:
        """A signal: finish the step and save; the second one stops at once."""
        if self.stop_signal is not None:
            raise KeyboardInterrupt
        self.stop_signal = number
