"""What happens at the end of an interval: record, keep the best, checkpoint, stop early."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from fuseline.errors import FuselineError
from fuseline.lab.training.checkpoint import save_weights
from fuseline.lab.training.module import TrainModule
from fuseline.lab.training.team import Team
from fuseline.lab.training.validation import Seen, Validation
from fuseline.package.files import write_text
from fuseline.progress import Advance
from fuseline.recipe import TrainingSpec
from fuseline.tasks import Task

SAVING = 30
"""how much longer than writing a checkpoint the time to the next one is at least"""


def better(value: float, best: float | None, higher: bool) -> bool:
    if np.isnan(value):
        return False
    return best is None or (value > best if higher else value < best)


Watch = Callable[[int, float], None]
"""told the interval and its validation metric; what it raises ends the training"""


class Keeper(pl.Callback):
    """Validates, records and checkpoints each interval. Its state travels in the checkpoint, so a resumed run goes on
    counting where it stopped."""

    def __init__(
        self,
        folder: Path,
        task: Task,
        metric: str,
        spec: TrainingSpec,
        validation: Validation | None,
        watch: Watch | None = None,
        team: Team | None = None,
    ) -> None:
        self.watch = watch
        self.team = team or Team()
        self.folder, self.task, self.metric, self.validation = folder, task, metric, validation
        self.patience, self.checkpoint_seconds = spec.patience, spec.checkpoint_seconds
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.saved = 0.0
        self.saving_seconds = 0.0
        self.higher_is_better = True
        self.best: float | None = None
        self.best_interval = -1
        self.waited = 0
        self.history: list[dict[str, float]] = []
        self.started = time.monotonic()
        self.seconds_before = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_interval": self.best_interval,
            "waited": self.waited,
            "history": self.history,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_interval, self.waited = state["best"], state["best_interval"], state["waited"]
        self.history, self.seconds_before = state["history"], state["seconds"]

    @property
    def interval(self) -> int:
        """The interval that is running. Counted here, since Lightning's own count lags while it restores."""
        return len(self.history)

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.validation and self.waited >= self.patience:  # resumed behind the interval that ended it: not one more
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainModule)
        pl_module.interval = self.interval
        pl_module.batch_losses.clear()
        pl_module.validation.clear()
        if pl_module.consistency is not None:
            pl_module.consistency.begin()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainModule)
        interval = self.interval
        train_loss = float(torch.stack(pl_module.batch_losses).mean()) if pl_module.batch_losses else float("nan")
        train_loss = self.team.mean(train_loss)
        row = {
            "interval": interval,
            "step": trainer.global_step,
            "seconds": round(self.seconds, 2),
            "learning_rate": float(trainer.optimizers[0].param_groups[-1]["lr"]),
            "train_loss": train_loss,
        }
        if not np.isfinite(train_loss):
            raise FuselineError(
                "diverged",
                f"the training loss is {train_loss} in interval {interval}",
                "lower training.learning_rate (and an encoder's own), or look for extreme numbers in the table",
            )
        if pl_module.consistency is not None:
            row |= pl_module.consistency.figures()
        improved = True
        if self.validation:
            row |= self._validate(self.validation, pl_module)
            value = row[f"val_{self.metric}"]
            improved = better(value, self.best, self.higher_is_better) or self.best_interval < 0
            # A few labelled rows are soon all right: unlabelled ones teach on behind that.
            improved |= pl_module.consistency is not None and value == self.best
            if improved and not np.isnan(value):
                self.best = value
            self.waited = 0 if improved else self.waited + 1
            if self.watch is not None:
                self.watch(interval, value)
        self.history.append(row)
        told = {k: v for k, v in row.items() if k not in ("interval", "step") and np.isfinite(v)}
        for logger in trainer.loggers:
            logger.log_metrics(told, step=int(row["step"]))
        if self.validation and self.waited >= self.patience:
            trainer.should_stop = True
        last = trainer.should_stop or self.interval == trainer.max_epochs
        due = last or time.monotonic() - self.saved >= self._apart
        due = self.team.agree("due" if due else "not yet") == "due"
        if improved:
            self.best_interval = interval
            if self.validation or due:  # without validation the latest are the best: taken when they are written
                self.best_weights = pl_module.kept()
        if due:
            self._save(trainer)

    @property
    def _apart(self) -> float:
        """Seconds between checkpoints. A large model with short intervals would else write half of its time."""
        return max(self.checkpoint_seconds, SAVING * self.saving_seconds) if self.checkpoint_seconds else 0.0

    def _save(self, trainer: pl.Trainer) -> None:
        start = time.monotonic()
        if self.best_weights is not None and self.team.first:
            # The best weights first: a kill before the checkpoint repeats all since the one before, and with it them.
            save_weights(self.best_weights, self.folder / "best.safetensors")
        self.best_weights = None
        trainer.save_checkpoint(self.folder / "last")  # called by all, written by the first
        if self.team.first:
            self._write_history()
        self.saved = time.monotonic()
        self.saving_seconds = self.saved - start

    def _validate(self, validation: Validation, module: TrainModule) -> dict[str, float]:
        """The first process scores, and tells the others: they must not differ in when to stop."""
        told = tuple(getattr(self.task, "told", ()))
        seen, error = validation.of_all(module.validation), None
        numbers = [0.0, 0.0, -1.0, *(0.0 for _ in told)]
        if seen is not None:
            try:
                numbers = self._score(seen, told)
            except FuselineError as raised:  # once the others know
                error = raised
        loss, value, higher, *more = self.team.tell(numbers)
        if error is not None or higher < 0:
            raise error or FuselineError("bad_team", "the first process could not score the validation rows", "")
        self.higher_is_better = higher > 0
        also = {f"val_{name}": number for name, number in zip(told, more, strict=True)}
        return {"val_loss": loss, **also, f"val_{self.metric}": value}

    def _score(self, seen: list[Seen], told: tuple[str, ...]) -> list[float]:
        """[loss, metric, whether more of it is better, and the metrics that are told beside it]"""
        outputs = {k: np.concatenate([s.outputs[k].numpy() for s in seen]) for k in seen[0].outputs}
        targets = np.concatenate([s.targets.numpy() for s in seen])
        weights = np.array([len(s.targets) for s in seen], dtype=float)
        losses = np.array([float(s.loss) for s in seen])
        scores = self.task.score(targets, outputs, details=False).metrics
        chosen = scores[self.metric]
        loss = float((losses * weights).sum() / weights.sum())
        more = (float(scores[name].value) for name in told)
        return [loss, float(chosen.value), float(chosen.higher_is_better), *more]

    def _write_history(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.history[0]))
        writer.writeheader()
        writer.writerows(self.history)
        write_text(self.folder.parent / "history.csv", text.getvalue())


class Bar(pl.Callback):
    """Moves the progress of the whole training, step by step."""

    def __init__(self, advance: Advance, keeper: Keeper) -> None:
        self.advance, self.keeper = advance, keeper

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step:
            self.advance(trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        row = self.keeper.history[-1] if self.keeper.history else {}
        text = f"loss {row['train_loss']:.3f}" if row else ""
        if f"val_{self.keeper.metric}" in row:
            text += (
                f" · val {self.keeper.metric} {row[f'val_{self.keeper.metric}']:.3f} (best {self.keeper.best or 0:.3f})"
            )
        self.advance(1, text)
