"""Fewer heads, hidden widths and channels in the layers that stay. Dimensions: B batch, U units, K places of one."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.compress.channels import find_channels
from fuseline.lab.compress.gates import taylor
from fuseline.lab.compress.probe import Part, some_rows, steady
from fuseline.lab.compress.units import Choice, Units, What, cut_units
from fuseline.lab.compress.widths import find_heads, find_widths, tie_heads
from fuseline.lab.model import FusionModel
from fuseline.lab.training.reader import Batch

ALL: tuple[What, ...] = ("heads", "feed_forward", "channels")
Scope = Literal["each", "all"]


def prune(
    model: FusionModel,
    part: str,
    share: float,
    batches: Sequence[Batch],
    what: Collection[What] = ALL,
    scope: Scope = "each",
) -> dict[str, dict[str, list[int]]]:
    """Keep about `share` of a part's heads, feed-forward widths and channels, in place: weights of real smaller shapes.

    Which go is for the first-order Taylor expansion of the head's loss to say (:func:`gates.taylor`). At least one head
    and 8 widths or channels of each layer stay; widths and channels stay in multiples of 8, for which kernels are
    fast. The width of the part's tokens stays. Dropout and augmentation are off meanwhile; what trains and what does
    not is as before.

    `batches` hold rows with targets, as cells: an encoder's tokens in place of them cannot be looked into. With `scope`
    "each", `share` of every layer stays; with "all", of all layers together, so that an idle layer loses more.

    Returns:
        What was cut: kind -> path of the module that makes the units -> [before, after].

    Raises:
        FuselineError: ``bad_cut`` on a share out of bounds; ``missing_extra`` where channels need torch-pruning.
    """
    if not 0 < share <= 1:
        raise FuselineError("bad_cut", f"{share:g} of {part} cannot stay", "a share above 0, at most 1")
    record: dict[str, dict[str, list[int]]] = {}
    if share == 1:
        return record
    with steady(model), torch.no_grad():
        look = Part(model, part, some_rows(batches[0]))
        assert look.runs, f"{part}: the batches hold tokens, not cells"
        found: list[Units] = []
        for kind, find in (("heads", find_heads), ("feed_forward", find_widths), ("channels", find_channels)):
            found += find(look) if kind in what else []
        scores = dict(zip(map(id, found), taylor(model, found, batches), strict=True))
        choices: list[Choice] = []
        for kind in ALL:
            own = [units for units in found if units.what == kind]
            choices += choose_units(own, [scores[id(units)] for units in own], share, scope)
        done: list[Choice] = []
        for exact in (True, False):
            done += cut_units(model, [c for c in choices if c[0].exact is exact], look.run)
        cut = {id(units) for units, _ in done}
        failed = [units for units, _ in choices if units.what == "heads" and id(units) not in cut]
        tied = tie_heads(look, failed)
        if tied is not None:
            together = torch.stack([scores[id(units)] for units in failed]).sum(0)
            if cut_units(model, choices := choose_units([tied], [together], share, "each"), look.run):
                done += [(units, choices[0][1]) for units in failed]
        for units, stay in done:
            record.setdefault(units.what, {})[units.path] = [units.count, len(stay)]
    return record


def choose_units(found: Sequence[Units], scores: Sequence[Tensor], share: float, scope: Scope) -> list[Choice]:
    """The units that stay in each layer; layers that lose none are left out."""
    wanted = [share * units.count for units in found]
    if scope == "all" and found:
        every = torch.cat(list(scores))
        bound = every.sort(descending=True).values[max(0, math.ceil(share * len(every)) - 1)]
        wanted = [float((score >= bound).sum()) for score in scores]
    choices = []
    for units, score, count in zip(found, scores, wanted, strict=True):
        step = math.lcm(units.step, units.blocks)
        stay = max(1, round(count / step)) * step
        if stay >= units.count:
            continue
        best = score.view(units.blocks, -1).argsort(dim=1, descending=True, stable=True)[:, : stay // units.blocks]
        first = torch.arange(units.blocks)[:, None] * (units.count // units.blocks)
        choices.append((units, (best + first).flatten().sort().values))
    return choices
