"""The attacks. Dimensions: B batch, M inputs, T tokens, D width."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fuseline.lab.attack.points import Point, array_points, length_of, watched
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.model import FusionModel, own_arrays
from fuseline.lab.tokens import Tokens
from fuseline.modalities import Modality
from fuseline.recipe import Radii

Loss = Callable[[dict[str, Tensor]], Tensor]
"""a batch's loss from the model's outputs"""
STRIDE = 2.5
"""radii that all steps of PGD together may go, as Madry et al. have it: enough to come from one side to the other"""


@dataclass
class Attack:
    """FGM: one step of the radius along the gradient (Miyato et al. 2017; on arrays its sign, Goodfellow et al. 2015).
    PGD: `steps` of them from a random start, projected after each (Madry et al. 2018)."""

    radii: Radii
    steps: int
    """0: FGM"""
    strength: float = 1.0
    inputs: Collection[str] | None = None
    """None: every input that can be pushed"""

    def __call__(
        self,
        model: FusionModel,
        modalities: Mapping[str, Modality],
        arrays: Mapping[str, Tensor],
        present_BM: Tensor,
        loss: Loss,
        *,
        seed: int,
        before: Callable[[], None] = lambda: None,
        clean: Mapping[str, Tokens] | None = None,
    ) -> dict[str, Tensor]:
        """The model's outputs on pushed inputs, with a graph for gradients.

        Args:
            model: in the mode in which it is attacked.
            modalities: fitted, for the units of radii.
            arrays: of the batch.
            present_BM: an input that is absent cannot be pushed: its tokens are not seen.
            loss: is made large.
            seed: of PGD's start.
            before: called before every pass, e.g. to draw the same dropout in each.
            clean: tokens of the inputs that are not pushed, where they are known already.
        """
        aimed = [n for n in model.names if self.inputs is None or n in self.inputs]
        aim = _Aim(model, modalities, arrays, present_BM, aimed, self.radii, self.strength, before, clean or {})
        generator = torch.Generator(present_BM.device).manual_seed(seed)
        changes = {key: torch.zeros_like(point.plain) for key, point in aim.points.items()}
        if self.steps:
            changes = {key: point.start(generator) for key, point in aim.points.items()}
        size = STRIDE / self.steps if self.steps else 1.0
        for _ in range(self.steps or 1):
            if not changes:
                break
            wanted = {key: change.detach().requires_grad_() for key, change in changes.items()}
            rise = torch.autograd.grad(loss(aim.outputs(wanted)), list(wanted.values()), allow_unused=True)
            for (key, change), gradient in zip(wanted.items(), rise, strict=True):
                if gradient is not None:
                    point = aim.points[key]
                    # A row that is not a number any more stays where it is.
                    moved = change.detach() + torch.nan_to_num(point.step(gradient.float(), size))
                    changes[key] = point.project(moved)
        return aim.outputs({key: change.detach() for key, change in changes.items()})


@dataclass
class _Aim:
    """The points of the inputs under attack, and the model's outputs when they are pushed."""

    model: FusionModel
    modalities: Mapping[str, Modality]
    arrays: Mapping[str, Tensor]
    present_BM: Tensor
    names: Collection[str]
    radii: Radii
    strength: float
    before: Callable[[], None]
    clean: Mapping[str, Tokens]
    points: dict[tuple[str, str | int], Point] = field(default_factory=dict)
    """by input and array, or place of the embedding"""

    def __post_init__(self) -> None:
        for name in self.names:
            own = own_arrays(name, self.arrays)
            for key, point in array_points(own, self.modalities[name], self.radii).items():
                self.points[name, key] = self._scaled(point)
            if "tokens" not in own:
                for place, vectors in self._lookups(name, own).items():
                    point = Point(vectors, self.radii.embeddings * length_of(vectors), "embeddings")
                    self.points[name, place] = self._scaled(point)

    def _encoder(self, name: str) -> Encoder:
        encoder = self.model.encoders[self.model.names.index(name)]
        assert isinstance(encoder, Encoder)
        return encoder

    def _scaled(self, point: Point) -> Point:
        return Point(point.plain, point.radius * self.strength, point.kind)

    @torch.no_grad()
    def _lookups(self, name: str, own: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """What the input's embeddings give, padding's vectors set to 0."""
        encoder = self._encoder(name)
        seen: dict[int, Tensor] = {}
        if not encoder.lookups():
            return seen
        with watched(encoder, seen, {}):
            encoder(**own)
        mask_BT = own.get("mask")
        if mask_BT is None:
            return {place: vectors.float() for place, vectors in seen.items()}
        real = (mask_BT != 0).reshape(-1, mask_BT.shape[-1], 1)
        return {place: torch.where(real, vectors.float(), 0.0) for place, vectors in seen.items()}

    def outputs(self, changes: Mapping[tuple[str, str | int], Tensor]) -> dict[str, Tensor]:
        self.before()
        tokens: dict[str, Tokens] = {}
        for name in self.model.names:
            if name not in self.names and name in self.clean:
                tokens[name] = self.clean[name]
                continue
            own = own_arrays(name, self.arrays)
            mine = {key: change for (n, key), change in changes.items() if n == name}
            for key, change in mine.items():
                if isinstance(key, str):
                    own[key] = self.points[name, key].plain + change
            with ExitStack() as stack:
                inside = {place: change for place, change in mine.items() if isinstance(place, int)}
                if inside:
                    stack.enter_context(watched(self._encoder(name), {}, inside))
                tokens[name] = self.model.encode_input(name, own)
        return self.model.answer(tokens, self.present_BM)
