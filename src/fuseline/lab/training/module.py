"""The Lightning module: loss, optimiser, schedule. Knows nothing of modalities."""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeGuard

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fuseline.lab.model import FusionModel
from fuseline.lab.training.average import Average
from fuseline.lab.training.checkpoint import trained_names, trained_state
from fuseline.lab.training.consistency import Consistency
from fuseline.lab.training.reader import Batch
from fuseline.lab.training.sharded import same_buffers
from fuseline.lab.training.step_loss import StepLoss
from fuseline.lab.training.team import Team, weighted
from fuseline.lab.training.validation import Seen
from fuseline.recipe import TrainingSpec


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Share of the learning rate at a step: linear rise, then half a cosine to 0 (Loshchilov & Hutter 2017)."""
    rise = max(1, round(total * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise))))


def seed_all(seed: int) -> None:
    """As torch.manual_seed, which formats a stack trace for every kind of device that is not there: a tenth of a
    small model's step."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


class Objective(Protocol):
    """What a step makes small instead of the head's own loss: one scalar of a batch and the model's outputs on it.

    Where it is an `nn.Module`, its parameters are trained beside the model's and travel in the checkpoints, but are no
    part of the weights that training leaves behind.
    """

    def __call__(self, model: FusionModel, batch: Batch, outputs: dict[str, Tensor]) -> Tensor: ...


class Unsupervised(Objective, Protocol):
    """An objective that calls the model's parts itself: it is given no outputs, and validation goes by it."""

    def held_out(self, model: FusionModel, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """What validation keeps of a batch for `Task.score`, B first, and the loss."""
        ...


def is_unsupervised(objective: Objective | None) -> TypeGuard[Unsupervised]:
    return hasattr(objective, "held_out")


class TrainModule(pl.LightningModule):
    """Trains a FusionModel. Every step seeds the random numbers from (seed, step), so that a resumed run draws the
    same dropout as an uninterrupted one without storing any generator's state."""

    def __init__(
        self,
        model: FusionModel,
        spec: TrainingSpec,
        *,
        total_steps: int,
        interval_steps: int,
        learning_rates: dict[str, float | None],
        step_loss: StepLoss | None = None,
        objective: Objective | None = None,
        team: Team | None = None,
        scalars: frozenset[str] = frozenset(),
        average: Average | None = None,
        consistency: Consistency | None = None,
    ) -> None:
        """`average`: follows the weights, and is what validates. `consistency`: the loss of unlabelled rows."""
        super().__init__()
        self.average, self.consistency = average, consistency
        self.updated = 0
        self.team = team or Team()
        self.scalars = scalars
        self.model = model
        self.step_loss = step_loss
        self.objective = objective
        self.names = trained_names(model)
        self.spec = spec
        self.total_steps, self.interval_steps = total_steps, interval_steps
        self.learning_rates = learning_rates
        self.interval = 0
        self.batch_losses: list[Tensor] = []
        self.validation: list[Seen] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        step = self.interval * self.interval_steps + batch_idx
        # Processes must not drop the same units of other rows: each draws for itself.
        seed = self.spec.seed * 1_000_003 + step + self.team.rank * 7_368_787
        seed_all(seed)
        assert self.model.training, "dropout and augmentation would be off"
        loss: Tensor
        if self.objective is None:
            assert self.step_loss is not None, "a step needs a loss or an objective"
            loss = self.step_loss(self.model, batch, step, lambda: seed_all(seed))
            if self.consistency is not None and batch.unlabelled is not None:
                loss = loss + self.consistency(self.model, self.average, batch.unlabelled, step)
        else:  # it may compare with what a teacher said of the same rows: they stay as they are
            alone = is_unsupervised(self.objective)
            outputs = {} if alone else self.model(batch.arrays, batch.present_BM)
            loss = self.objective(self.model, batch, outputs)
        loss = weighted(loss, batch.weight)
        self.batch_losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.average is not None and self.trainer.global_step > self.updated:  # not within accumulated batches
            self.updated = self.trainer.global_step
            self.average.update(self.model)

    def kept(self) -> dict[str, Tensor]:
        """The weights that validation speaks of."""
        if self.average is None:
            return trained_state(self.model, self.names, self.scalars)
        return self.average.kept()

    def on_validation_start(self) -> None:
        if self.team.sharded:
            same_buffers(self.model)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert batch.targets is not None
        if is_unsupervised(self.objective):
            kept, loss = self.objective.held_out(self.model, batch)
            self.validation.append(Seen({k: v.float().cpu() for k, v in kept.items()}, batch.targets.cpu(), loss.cpu()))
            return
        if self.average is None:
            outputs = self.model(batch.arrays, batch.present_BM)
        else:
            outputs = self.average.answer(self.model, batch.arrays, batch.present_BM)
        loss = self.model.head.loss(outputs, batch.targets)
        kept = self.model.head.validation(outputs, batch.targets)
        self.validation.append(Seen({k: v.float().cpu() for k, v in kept.items()}, batch.targets.cpu(), loss.cpu()))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        if device.type == "cpu":
            return batch
        more = batch.unlabelled
        return Batch(
            {k: v.to(device, non_blocking=True) for k, v in batch.arrays.items()},
            batch.present_BM.to(device),
            None if batch.targets is None else batch.targets.to(device),
            batch.rows,
            batch.weight,
            None if more is None else self.transfer_batch_to_device(more, device, dataloader_idx),
        )

    def configure_optimizers(self) -> Any:
        # Lightning clips no gradients of a fused optimiser in mixed precision: that would unscale them by itself.
        fused = not str(self.trainer.precision).endswith("-mixed")
        optimizer = torch.optim.AdamW(self._groups(), lr=self.spec.learning_rate, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, self.total_steps, self.spec.warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _groups(self) -> list[dict[str, Any]]:
        """Weight decay only where it belongs (matrices), and each encoder at its own learning rate."""
        groups: list[dict[str, Any]] = []
        own: set[int] = set()

        def add(module: nn.Module, rate: float) -> None:
            trained = [p for p in module.parameters() if p.requires_grad and id(p) not in own]
            own.update(id(p) for p in trained)
            for decay, chosen in (
                (self.spec.weight_decay, [p for p in trained if p.ndim > 1]),
                (0.0, [p for p in trained if p.ndim <= 1]),
            ):
                if chosen:
                    groups.append({"params": chosen, "lr": rate, "weight_decay": decay})

        for name, encoder in zip(self.model.names, self.model.encoders, strict=True):
            rate = self.learning_rates.get(name)
            if rate is not None:
                add(encoder, rate)
        add(self.model, self.spec.learning_rate)
        if isinstance(self.objective, nn.Module):
            add(self.objective, self.spec.learning_rate)
        return groups

    def stores(self, name: str) -> bool:
        """Whether a checkpoint holds this of the module's state."""
        return name.removeprefix("model.") in self.names or name.startswith("objective.")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if self.stores(k)}
        for name, part in self._followers():
            checkpoint[name] = part.state()

    def _followers(self) -> list[tuple[str, Average | Consistency]]:
        """What moves along with the weights, without being any."""
        parts = (("average", self.average), ("consistency", self.consistency))
        return [(name, part) for name, part in parts if part is not None]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        whole = self.state_dict()  # frozen encoders come from their source, not from the checkpoint
        checkpoint["state_dict"] = {**whole, **checkpoint["state_dict"]}
        self.updated = checkpoint["global_step"]
        for name, part in self._followers():
            part.load(checkpoint[name])
