"""What one training step makes small: the head's loss on augmented, mixed and attacked rows, as the recipe says.

Dimensions: B batch, M inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.attack.attack import Attack
from fuseline.lab.augment.batch import Augmenter, make_augmenter
from fuseline.lab.augment.mixup import mix
from fuseline.lab.model import FusionModel
from fuseline.lab.training.prepare import Prepared
from fuseline.lab.training.reader import Batch
from fuseline.modalities import Modality
from fuseline.recipe import TrainingSpec


class StepLoss:
    """The loss of a step. The same (seed, step, rows), the same loss."""

    def __init__(self, spec: TrainingSpec, augmenter: Augmenter | None, modalities: Mapping[str, Modality]) -> None:
        self.spec, self.augmenter, self.modalities = spec, augmenter, modalities
        self.attack = None
        if spec.adversarial is not None:
            own = spec.adversarial
            self.attack = Attack(own.radii, own.steps if own.kind == "pgd" else 0, own.strength, own.inputs)

    def __call__(self, model: FusionModel, batch: Batch, step: int, reseed: Callable[[], None]) -> Tensor:
        """`reseed` draws the step's dropout anew, so that all passes of an attack see the same network."""
        if self.augmenter is not None:
            batch = self.augmenter(batch, step)
        assert batch.targets is not None
        arrays, targets = model.head.augment(batch.arrays, batch.targets)
        plain = self._plain(model, arrays, batch.present_BM, targets, step)
        if self.attack is None:
            return plain

        def lost(outputs: dict[str, Tensor]) -> Tensor:
            loss: Tensor = model.head.loss(outputs, targets)
            return loss

        seed = self.spec.seed * 1_000_003 + step
        pushed = self.attack(model, self.modalities, arrays, batch.present_BM, lost, seed=seed, before=reseed)
        assert self.spec.adversarial is not None
        weight = self.spec.adversarial.weight
        return (1 - weight) * plain + weight * lost(pushed)

    def _plain(
        self, model: FusionModel, arrays: dict[str, Tensor], present_BM: Tensor, targets: Tensor, step: int
    ) -> Tensor:
        if not self.spec.mixup:
            loss: Tensor = model.head.loss(model(arrays, present_BM), targets)
            return loss
        rng = np.random.default_rng([self.spec.seed, step])
        mixed = mix(model.encode(arrays), present_BM, self.spec.mixup, rng)
        outputs = model.answer(mixed.tokens, present_BM)
        own: Tensor = model.head.loss(outputs, targets)
        other: Tensor = model.head.loss(outputs, targets[mixed.partner_B])
        return mixed.share * own + (1 - mixed.share) * other


def make_step_loss(prepared: Prepared, model: FusionModel) -> StepLoss:
    """Raises FuselineError ``bad_recipe`` where the task cannot have what the recipe wants."""
    spec, modalities = prepared.recipe.training, prepared.parser.modalities
    if spec.mixup and not model.head.mixes:
        message = f"training.mixup: rows of the task {prepared.task.name} cannot be mixed"
        raise FuselineError("bad_recipe", message, "for classes and numbers only")
    unknown = [n for n in (spec.adversarial.inputs or () if spec.adversarial else ()) if n not in model.names]
    if unknown:
        message = f"training.adversarial.inputs: there is no input {unknown[0]!r}"
        raise FuselineError("bad_recipe", message, f"there are {', '.join(model.names)}")
    return StepLoss(spec, make_augmenter(prepared.plans, modalities, prepared.reader, spec.seed), modalities)
