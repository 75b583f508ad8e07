"""The folder of one training under a teacher: which one it is, where it stands, and going on with it."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.lab.compress.teacher import Teacher
from fuseline.lab.model import FusionModel
from fuseline.lab.training import loop
from fuseline.lab.training.checkpoint import load_weights
from fuseline.lab.training.module import Objective
from fuseline.lab.training.prepare import Prepared
from fuseline.package.files import finite, write_json
from fuseline.progress import Voice
from fuseline.recipe import Frozen

FILE = "lesson.json"


def key_of_training(
    kind: str, prepared: Prepared, model: FusionModel, config: Frozen, teacher: Teacher | None, *more: Any
) -> str:
    """Two trainings of one key end with the same weights: same rows, same start, same recipe, same teacher."""
    text = hashlib.sha256(kind.encode())
    recipe = prepared.recipe.model_dump(mode="json", include={"inputs", "task", "fusion", "training"})
    plain = (recipe, config.model_dump(mode="json"), more)
    text.update(json.dumps(plain, sort_keys=True, default=repr).encode())
    text.update(prepared.fingerprint().encode())
    text.update(teacher.key.encode() if teacher is not None else b"")
    for name, tensor in sorted(model.state_dict().items()):
        text.update(name.encode())
        text.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return text.hexdigest()


@dataclass
class Lesson:
    """`data` is what lesson.json holds: the key, the precision once chosen, and what the caller saves."""

    folder: Path
    data: dict[str, Any]

    @classmethod
    def open(cls, folder: Path, key: str) -> Lesson:
        """As it was left, if it is the one of `key`; a folder of any other begins anew."""
        folder.mkdir(parents=True, exist_ok=True)
        try:
            data = json.loads((folder / FILE).read_text(encoding="utf-8"))
            if isinstance(data, dict) and data.get("key") == key:
                return cls(folder, data)
        except (OSError, ValueError):
            pass
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        lesson = cls(folder, {"key": key})
        lesson.save()
        return lesson

    def save(self, **more: Any) -> None:
        self.data |= finite(more)
        write_json(self.folder / FILE, self.data)

    def fit(self, prepared: Prepared, model: FusionModel, objective: Objective | None, voice: Voice) -> loop.Trained:
        """Train from where it stands to the end; the best weights are in `model` then."""
        notes: list[str] = []
        precision = self.data.get("precision") or loop.choose_precision(prepared, model, notes)
        self.save(precision=precision, notes=notes)
        return loop.fit(prepared, model, self.folder, voice, resume=True, precision=precision, objective=objective)

    def load(self, model: FusionModel) -> None:
        """The weights that it ended with."""
        load_weights(model, self.folder / "checkpoints" / "best.safetensors")
