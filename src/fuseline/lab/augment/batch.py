"""The augmentation of whole batches: which input is changed by what, and with which random numbers.

Dimensions: B batch, M inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.augment import augment_class
from fuseline.lab.augment.base import Augment, Draw
from fuseline.lab.build import Plan
from fuseline.lab.model import own_arrays
from fuseline.lab.training.reader import Batch, Reader
from fuseline.modalities import Modality


class Augmenter:
    """Changes the inputs whose recipe says so. What it draws is a function of (seed, step, input, rows of the batch):
    the same however the batches are read, killed and resumed, and other on each worker."""

    def __init__(self, parts: Mapping[str, Augment], reader: Reader, seed: int) -> None:
        self.parts, self.reader, self.seed = dict(parts), reader, seed

    def __call__(self, batch: Batch, step: int) -> Batch:
        arrays, present_BM = dict(batch.arrays), batch.present_BM
        for place, name in enumerate(self.reader.parser.names):
            part = self.parts.get(name)
            own = own_arrays(name, arrays)
            if part is None or "tokens" in own:  # tokens that were kept are of cells as they are
                continue
            device = present_BM.device
            draw = Draw(device, self.seed, step, place, *batch.rows.tolist())
            own |= self._reworded(name, part, batch, draw)
            with torch.no_grad():
                changed = part(own, present_BM[:, place], draw)
            arrays |= {f"{name}.{key}": value for key, value in changed.items()}
        return replace(batch, arrays=arrays)

    def _reworded(self, name: str, part: Augment, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """The arrays of cells that were changed before they were parsed; {} where this augmentation does not."""
        parser = self.reader.parser
        columns = list(parser.modalities[name].columns)
        if type(part).reword is Augment.reword:
            return {}
        cells = [parser.cells(name, row) for row in Table.rows(self.reader.table.take(batch.rows, columns))]
        changed = part.reword(cells, draw)
        if changed is None:
            return {}
        values = []
        for plain, other in zip(cells, changed, strict=True):
            try:
                value, _ = parser.parse_input(name, other, self.reader.media)
            except FuselineError:
                value = None
            # A synonym that leaves nothing to read does not take the text away.
            values.append(parser.parse_input(name, plain, self.reader.media)[0] if value is None else value)
        found = parser.collate(name, values)
        return {k[len(name) + 1 :]: torch.from_numpy(v).to(batch.present_BM.device) for k, v in found.items()}


def make_augmenter(
    plans: Mapping[str, Plan], modalities: Mapping[str, Modality], reader: Reader, seed: int
) -> Augmenter | None:
    """None where no input is augmented."""
    parts = {}
    for name, plan in plans.items():
        cls = augment_class(plan.modality)
        if plan.augment is not None and cls is not None:
            parts[name] = cls(plan.augment, modalities[name])
    return Augmenter(parts, reader, seed) if parts else None
