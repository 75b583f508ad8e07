"""Several members that answer together. Dimensions: B batch, M inputs, T tokens, D widths, C categories or classes,
V values of a category, N members."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.heads.base import Head
from fuseline.lab.model import FusionModel, own_arrays
from fuseline.lab.tokens import Tokens

Outputs = dict[str, Tensor]
CODES = "categories"
"""the array of a table's categories"""


class Recode(nn.Module):
    """Category codes (B, C) of all members' values together, as one member's own: what it never met is "unseen"."""

    def __init__(self, code_CV: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("code_X", torch.from_numpy(code_CV.astype(np.int64).ravel()))
        starts_C = np.arange(code_CV.shape[0]) * code_CV.shape[1]
        self.register_buffer("starts_C", torch.from_numpy(starts_C.astype(np.int64)))

    def forward(self, codes_BC: Tensor) -> Tensor:
        return self.get_buffer("code_X")[codes_BC + self.get_buffer("starts_C")]


class Ensemble(nn.Module):
    """Answers as a FusionModel: the members' mean.

    A frozen encoder that is the same in all members is held and computed once. Each member keeps what it learned of
    numbers (medians, quantiles, deviations), since that is in its encoders.

    Args:
        members: of the same inputs and task, in eval mode.
        mean: of the members' outputs.
        recodes: by member, input name -> its :class:`Recode`, where its categories are not all members'.
    """

    def __init__(
        self,
        members: Sequence[FusionModel],
        mean: Callable[[Sequence[Outputs]], Outputs],
        recodes: Sequence[Mapping[str, Recode]],
    ) -> None:
        super().__init__()
        self.names = members[0].names
        self.mean = mean
        self.shared_names: list[str] = []
        shared: list[nn.Module] = []
        for i, name in enumerate(self.names):
            own = [m.encoders[i] for m in members]
            if not any(name in r for r in recodes) and all(_equal(own[0], other) for other in own[1:]):
                self.shared_names.append(name)
                shared.append(own[0])
                for member in members:
                    member.encoders[i] = nn.Identity()  # never called: the member is given tokens
        self.shared = nn.ModuleList(shared)
        self.members = nn.ModuleList(members)
        self.recodes = nn.ModuleList(nn.ModuleList(r.values()) for r in recodes)
        self.recoded = [list(r) for r in recodes]

    @property
    def encoders(self) -> list[Encoder]:
        """All of them, the shared ones once."""
        own = [e for m in self.members for e in m.encoders]  # type: ignore[union-attr]
        return [e for e in (*self.shared, *own) if isinstance(e, Encoder)]

    def traced_from(self, name: str, dimension: str, least: int) -> int:
        """As a FusionModel's: what suits all members."""
        if name in self.shared_names:
            encoder: Encoder = self.shared[self.shared_names.index(name)]  # type: ignore[assignment]
            return encoder.traced_from(dimension, least)
        own: list[int] = [m.traced_from(name, dimension, least) for m in self.members]  # type: ignore[operator]
        return max(own)

    @property
    def head(self) -> Head:
        head: Head = self.members[0].head  # type: ignore[assignment]
        return head

    def forward(self, arrays: Mapping[str, Tensor], present_BM: Tensor) -> Outputs:
        given = dict(arrays)
        for name, encoder in zip(self.shared_names, self.shared, strict=True):
            own = own_arrays(name, arrays)
            tokens: Tokens = encoder(**own)
            for key in own:
                del given[f"{name}.{key}"]
            given |= {f"{name}.tokens": tokens.values_BTD, f"{name}.tokens_mask": tokens.mask_BT}
            given |= {f"{name}.aside.{key}": value for key, value in (tokens.aside or {}).items()}
        outputs = []
        for member, recodes, names in zip(self.members, self.recodes, self.recoded, strict=True):
            codes = {f"{n}.{CODES}": r(given[f"{n}.{CODES}"]) for n, r in zip(names, recodes, strict=True)}  # type: ignore[call-overload]
            outputs.append(member({**given, **codes}, present_BM))
        # Vectors of unlike spaces have no mean: they stand side by side.
        return {**self.mean(outputs), "embedding": torch.cat([o["embedding"] for o in outputs], dim=1)}


def _equal(a: nn.Module, b: nn.Module) -> bool:
    """Whether two encoders give the same: their weights and all their buffers are the same to the bit."""
    mine, theirs = ({**dict(e.named_parameters()), **dict(e.named_buffers())} for e in (a, b))
    return type(a) is type(b) and mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def mean_of_classes(outputs: Sequence[Outputs]) -> Outputs:
    """Logits (B, C) whose softmax is the mean of the members' softmaxes."""
    log_NBC = torch.stack([o["logits"] for o in outputs]).log_softmax(dim=-1)
    return {"logits": log_NBC.logsumexp(dim=0) - math.log(len(outputs))}


def mean_of_labels(outputs: Sequence[Outputs]) -> Outputs:
    """Logits (B, C) whose sigmoids are the means of the members' sigmoids: log of the mean p over the mean 1 - p."""
    logits_NBC = torch.stack([o["logits"] for o in outputs])
    return {"logits": F.logsigmoid(logits_NBC).logsumexp(dim=0) - F.logsigmoid(-logits_NBC).logsumexp(dim=0)}


def mean_of_numbers(outputs: Sequence[Outputs]) -> Outputs:
    """Each output's mean. Of quantiles it is the quantile of the members' mean distribution by quantiles (Vincent's
    averaging; Lichtendahl et al. 2013), and rises with them."""
    names = [name for name in outputs[0] if name != "embedding"]
    return {name: torch.stack([o[name] for o in outputs]).mean(dim=0) for name in names}
