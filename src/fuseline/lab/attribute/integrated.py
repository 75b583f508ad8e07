"""Integrated gradients of one input of one row (Sundararajan et al. 2017).

The attribution of number x_i against a baseline b is (x_i - b_i) · ∫₀¹ ∂f/∂x_i (b + a (x - b)) da. All of them add up
to f(x) - f(b): completeness, which says whether the integral was taken in enough steps, so the steps are doubled until
it holds. Dimensions: K steps, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fuseline.lab.attack.points import watched
from fuseline.lab.model import FusionModel, own_arrays
from fuseline.lab.tokens import Tokens

Key = str | int
"""the name of an array or of a gate, or the number of one of the encoder's lookups, as attacks have it"""
Output = Callable[[dict[str, Tensor]], Tensor]
"""the model's outputs -> (B,) the explained number"""
ARRAYS = ("pixels", "frames", "waveform", "numbers", "values")
FIRST, MOST = 16, 512
"""steps of the first try and of the last"""
TOLERANCE = 1e-3
"""of completeness: a share of what is to be explained, or of 1 where that is larger (probabilities)"""
TOGETHER = 16
"""steps that run as one batch"""


@dataclass(frozen=True)
class Attribution:
    """What each number of each array (or lookup: each id) of one input did."""

    by_key: dict[Key, np.ndarray]
    """the array's own shape without B; of a lookup the shape of its ids, summed over D"""
    change: float
    """f(x) - f(baseline)"""
    steps: int

    @property
    def gap(self) -> float:
        """Sum of all attributions minus what they shall add up to."""
        return float(sum(v.sum() for v in self.by_key.values())) - self.change


def integrate(
    model: FusionModel,
    arrays: Mapping[str, Tensor],
    present_BM: Tensor,
    name: str,
    baselines: Mapping[str, Tensor],
    output: Output,
    *,
    unit: float = 1.0,
    most: int = MOST,
) -> Attribution | None:
    """Attribute one row's output to one of its inputs, the others as they are; None where it has nothing continuous.

    Args:
        model: in eval mode.
        arrays: of the one row (B = 1).
        present_BM: (1, M).
        name: the input.
        baselines: array -> its baseline, broadcastable; embeddings start from vectors of zeros, gates from 0.
        output: the number that is attributed.
        unit: completeness holds to TOLERANCE times this, or times the change where that is larger.
        most: steps at most; what is not complete by then says so by its `gap`.
    """
    path = _Path(model, arrays, present_BM, name, baselines, output)
    if not path.starts:
        return None
    steps = FIRST
    while True:
        found = Attribution(path.integral(steps), path.change, steps)
        if abs(found.gap) <= TOLERANCE * max(unit, abs(found.change)) or steps >= most:
            return found
        steps = min(2 * steps, most)


class _Path:
    """The straight way from the baseline to the row."""

    def __init__(
        self,
        model: FusionModel,
        arrays: Mapping[str, Tensor],
        present_BM: Tensor,
        name: str,
        baselines: Mapping[str, Tensor],
        output: Output,
    ) -> None:
        self.model, self.name, self.output, self.present_BM = model, name, output, present_BM
        self.encoder = model.encoders[model.names.index(name)]
        self.own = own_arrays(name, arrays)
        with torch.no_grad():
            self.others = {n: t for n, t in model.encode(arrays).items() if n != name}
            ends: dict[Key, Tensor] = {}
            if self.encoder.lookups():  # type: ignore[operator]
                seen: dict[int, Tensor] = {}
                with watched(self.encoder, seen, {}):  # type: ignore[arg-type]
                    self.encoder(**self.own)
                ends |= {place: vectors.float() for place, vectors in seen.items()}
            gates: dict[Key, Tensor] = {**self.encoder.gates(**self.own)}  # type: ignore[operator]
        ends |= {key: self.own[key].float() for key in ARRAYS if key in self.own}
        ends |= gates
        self.ends = ends
        given = {key: baselines[key].to(ends[key]).expand_as(ends[key]) for key in baselines if key in ends}
        self.starts = {
            key: given[key] if isinstance(key, str) and key in given else torch.zeros_like(end)
            for key, end in ends.items()
            if isinstance(key, int) or key in given or key in gates
        }
        # A spectrogram is a logarithm: next to silence it changes most, so most of the steps are taken there.
        self.power = 4 if "waveform" in self.starts else 1
        with torch.no_grad():
            self.change = float((self._outputs(self._at([1.0])) - self._outputs(self._at([0.0])))[0])

    def _at(self, shares: list[float]) -> dict[Key, Tensor]:
        out = {}
        for key, start in self.starts.items():
            share = torch.tensor(shares, dtype=start.dtype).reshape(-1, *(1,) * (start.ndim - 1))
            out[key] = start + share * (self.ends[key] - start)
        return out

    def _outputs(self, points: Mapping[Key, Tensor]) -> Tensor:
        count = len(next(iter(points.values())))
        own = {key: value.expand(count, *value.shape[1:]) for key, value in self.own.items()}
        own |= {key: point for key, point in points.items() if isinstance(key, str)}
        changes = {key: point - self.ends[key] for key, point in points.items() if isinstance(key, int)}
        with ExitStack() as stack:
            if changes:
                stack.enter_context(watched(self.encoder, {}, changes))  # type: ignore[arg-type]
            tokens = {self.name: self.model.encode_input(self.name, own)}
        tokens |= {name: _repeated(other, count) for name, other in self.others.items()}
        return self.output(self.model.answer(tokens, self.present_BM.expand(count, -1)))

    def integral(self, steps: int) -> dict[Key, np.ndarray]:
        """By Gauss and Legendre's points and weights, in t where a = t^power."""
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        times = (nodes + 1) / 2
        ways, weights = times**self.power, weights / 2 * self.power * times ** (self.power - 1)
        total = {key: torch.zeros_like(end[0], dtype=torch.float64) for key, end in self.ends.items()}
        for first in range(0, steps, TOGETHER):
            shares = ways[first : first + TOGETHER].tolist()
            points = {key: point.requires_grad_() for key, point in self._at(shares).items()}
            rise = torch.autograd.grad(self._outputs(points).sum(), list(points.values()), allow_unused=True)
            weight = torch.tensor(weights[first : first + TOGETHER], dtype=torch.float64)
            for key, gradient in zip(points, rise, strict=True):
                if gradient is not None:
                    total[key] += torch.tensordot(weight, gradient.double(), dims=1)
        out = {}
        for key, start in self.starts.items():
            whole = total[key] * (self.ends[key] - start)[0].double()
            out[key] = (whole.sum(dim=-1) if isinstance(key, int) else whole).numpy()
        return out


def _repeated(tokens: Tokens, count: int) -> Tokens:
    def more(value: Tensor) -> Tensor:
        return value.expand(count, *value.shape[1:])

    aside = None if tokens.aside is None else {key: more(value) for key, value in tokens.aside.items()}
    return Tokens(more(tokens.values_BTD), more(tokens.mask_BT), aside)
