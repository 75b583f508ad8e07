"""One head a task, and the weight of each one's loss. Dimensions: B batch, P packed numbers, K tasks, D model width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fuseline.lab.heads.base import Head
from fuseline.lab.tokens import Fused, View
from fuseline.modalities import Modality
from fuseline.tasks.base import Task
from fuseline.tasks.multi import Multi, MultiConfig, own_outputs

DTYPES = {"b": torch.bool, "i": torch.int64, "u": torch.int64, "f": torch.float32}


class MultiHead(Head):
    """{"<task>.<output>": what that task's own head gives}."""

    def __init__(self, task: Task, inputs: Mapping[str, Modality], *, width: int, dropout: float) -> None:
        super().__init__(task, inputs, width=width, dropout=dropout)
        from fuseline.lab.heads import head_class

        assert isinstance(task, Multi)
        self.names = tuple(task.tasks)
        self.places, self.width = task.places, task.width
        # A list, not a dict by name: a task may be called "loss" or "training".
        self.heads: Any = nn.ModuleList(
            head_class(one.name)(one, inputs, width=width, dropout=dropout) for one in task.tasks.values()
        )
        self.mixes = all(head.mixes for head in self.heads)
        weights = task.config.weights
        self.log_variance_K = nn.Parameter(torch.zeros(len(self.names))) if weights == "learned" else None
        fixed = [float(weights[n]) if isinstance(weights, dict) else 1.0 for n in self.names]
        self.register_buffer("weight_K", torch.tensor(fixed), persistent=False)

    def meet(self, encoders: Mapping[str, nn.Module]) -> None:
        for head in self.heads:
            head.meet(encoders)
        self.reads_encoded = any(head.reads_encoded for head in self.heads)

    @classmethod
    def needs(cls, config: Any) -> Mapping[str, Mapping[str, Any]]:
        from fuseline.lab.heads import head_class

        assert isinstance(config, MultiConfig)
        out: dict[str, dict[str, Any]] = {}
        for name, spec in config.tasks.items():
            for modality, options in head_class(spec.kind).needs(config.configs[name]).items():
                out.setdefault(modality, {}).update(options)
        return out

    @classmethod
    def fixed(cls, config: Any) -> Mapping[str, tuple[str, ...]]:
        from fuseline.lab.heads import head_class

        assert isinstance(config, MultiConfig)
        out: dict[str, tuple[str, ...]] = {}
        for name, spec in config.tasks.items():
            for modality, options in head_class(spec.kind).fixed(config.configs[name]).items():
                out[modality] = (*out.get(modality, ()), *options)
        return out

    def forward(self, fused: Fused, view: View) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": value
            for name, head in zip(self.names, self.heads, strict=True)
            for key, value in head(fused, view).items()
        }

    def begin(self, batches: Iterable[tuple[Mapping[str, Tensor], Tensor]]) -> None:
        eager = [k for k, head in enumerate(self.heads) if type(head).begin is not Head.begin]
        shown = list(batches) if len(eager) > 1 else batches
        for k in eager:
            self.heads[k].begin(self._own_rows(k, arrays, targets) for arrays, targets in shown)

    def _own_rows(self, k: int, arrays: Mapping[str, Tensor], targets: Tensor) -> tuple[Mapping[str, Tensor], Tensor]:
        known_B = targets[:, self.width + k] > 0
        return {key: v[known_B] for key, v in arrays.items()}, self._unpacked(k, targets[known_B])

    def _unpacked(self, k: int, targets: Tensor) -> Tensor:
        at = self.places[self.names[k]]
        return targets[:, at.start : at.stop].reshape(-1, *at.shape).to(DTYPES[torch_kind(at.dtype)])

    def augment(self, arrays: dict[str, Tensor], targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """What the one task wants whose targets move with its inputs; of two, each would undo the other's places."""
        moving = [k for k, head in enumerate(self.heads) if type(head).augment is not Head.augment]
        if len(moving) != 1:
            return arrays, targets
        k, at = moving[0], self.places[self.names[moving[0]]]
        known_B = targets[:, self.width + k] > 0
        own = torch.where(known_B.reshape(-1, *(1,) * len(at.shape)), self._unpacked(k, targets), -1)
        arrays, own = self.heads[k].augment(arrays, own)
        targets = targets.clone()
        targets[known_B, at.start : at.stop] = own[known_B].reshape(int(known_B.sum()), -1).to(targets.dtype)
        return arrays, targets

    def loss(self, outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """`targets` (B, P + K), see :mod:`fuseline.tasks.multi`. A row counts for the tasks whose targets it has.

        Learned: Σ_k exp(-s_k)·L_k + s_k / 2 with s_k the logarithm of task k's noise, learned from 0 (Kendall et al.
        2018, eq. 10; a constant factor on L_k only moves s_k). Else Σ_k w_k·L_k.
        """
        total = torch.zeros((), device=targets.device)
        for k, (name, head) in enumerate(zip(self.names, self.heads, strict=True)):
            known_B = targets[:, self.width + k] > 0
            if not bool(known_B.any()):
                continue
            own = self._unpacked(k, targets[known_B])
            lost: Tensor = head.loss({key: v[known_B] for key, v in own_outputs(name, outputs).items()}, own)
            if self.log_variance_K is None:
                total = total + self.get_buffer("weight_K")[k] * lost
            else:
                total = total + torch.exp(-self.log_variance_K[k]) * lost + self.log_variance_K[k] / 2
        return total

    def weights(self) -> dict[str, float]:
        """What each task's loss counts now."""
        if self.log_variance_K is None:
            return dict(zip(self.names, self.get_buffer("weight_K").tolist(), strict=True))
        return dict(zip(self.names, torch.exp(-self.log_variance_K.detach()).tolist(), strict=True))


def torch_kind(dtype: str) -> str:
    """`<f4` to `f`."""
    return dtype.lstrip("<>=|")[0]
