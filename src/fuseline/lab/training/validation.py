"""The validation rows and who scores which of them: of a team each process takes its batches, and the first one has all
outputs. Its metrics are those of one process to the bit, since no batch is another one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch import Tensor

from fuseline.lab.training.reader import Batch, Reader
from fuseline.lab.training.team import Team


class Seen(NamedTuple):
    """What the head kept of one batch, its targets, and its loss."""

    outputs: dict[str, Tensor]
    targets: Tensor
    loss: Tensor


class Validation:
    """The validation rows in fixed order, in batches of `size` that are dealt to the team's processes in turn."""

    def __init__(self, reader: Reader, rows: np.ndarray, size: int, team: Team) -> None:
        self.reader, self.rows, self.size, self.team = reader, rows, size, team
        self.batches = math.ceil(len(rows) / size)

    def __len__(self) -> int:
        return math.ceil(self.batches / self.team.size)

    def __iter__(self) -> Iterator[Batch]:
        for turn in range(len(self)):
            # Who has none left scores the last one again: in every step all exchange buffers or weights.
            at = min(turn * self.team.size + self.team.rank, self.batches - 1)
            yield self.reader.batch(self._rows(at))

    def _rows(self, at: int) -> np.ndarray:
        return self.rows[at * self.size : (at + 1) * self.size]

    def of_all(self, mine: list[Seen]) -> list[Seen] | None:
        """All batches in the order of the rows, from each process's own. None but in the first process."""
        if self.team.size == 1:
            return mine
        most = len(self._rows(0))
        outputs = {key: self._gathered([seen.outputs[key] for seen in mine], most) for key in mine[0].outputs}
        targets = self._gathered([seen.targets for seen in mine], most)
        losses = self._gathered([seen.loss.reshape(1) for seen in mine], 1)
        if not self.team.first:
            return None
        found = []
        for at in range(self.batches):
            turn, rank = divmod(at, self.team.size)
            n = len(self._rows(at))
            own = {key: got[rank][turn, :n] for key, got in outputs.items()}
            found.append(Seen(own, targets[rank][turn, :n], losses[rank][turn, 0]))
        return found

    def _gathered(self, mine: list[Tensor], most: int) -> list[Tensor]:
        """Of each process what it has, (turns, `most` rows, ...), short batches filled up."""
        padded = mine[0].new_zeros((len(mine), most, *mine[0].shape[1:]))
        for turn, tensor in enumerate(mine):
            padded[turn, : len(tensor)] = tensor
        return self.team.gather(padded)
