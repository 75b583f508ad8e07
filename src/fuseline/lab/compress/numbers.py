"""Which number formats are worth trying for a model, and in which order. The table is the advice of docs/compress.md,
measured in benchmarks/backends.py and benchmarks/compression.py."""

from __future__ import annotations

import importlib.util
from typing import Literal

from torch import nn

from fuseline.lab.compress.candidate import Backend, Numbers, Precision
from fuseline.lab.compress.names import FUSION
from fuseline.lab.compress.rungs import FEW_PARAMETERS
from fuseline.lab.model import FusionModel

Kind = Literal["convolutions", "products", "small"]


def kind_of(module: nn.Module) -> Kind:
    """What a part's time goes into: convolutions, or products of matrices (Transformers); `small`: nothing to gain."""
    total = sum(p.numel() for p in module.parameters())
    if total < FEW_PARAMETERS:
        return "small"
    convolutions = sum(m.weight.numel() for m in module.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d)))
    return "convolutions" if convolutions > total / 2 else "products"


def kinds(model: FusionModel) -> dict[str, Kind]:
    """Part -> kind, of the inputs' encoders and of what stands behind them."""
    found = {name: kind_of(encoder) for name, encoder in zip(model.names, model.encoders, strict=True)}
    return {**found, FUSION: kind_of(nn.ModuleList([model.fusion, model.head]))}


def backends() -> tuple[Backend, ...]:
    have = importlib.util.find_spec("openvino") is not None
    return ("openvino", "onnxruntime") if have else ("onnxruntime",)


def ladder(model: FusionModel) -> list[Numbers]:
    """Number formats for the whole model, most promising first."""
    parts = kinds(model)
    large = [p for p, k in parts.items() if k != "small"]
    out: list[Numbers] = []
    for backend in backends():
        for by_kind in _BY_KIND[backend]:
            precision = {p: by_kind[parts[p]] for p in parts if by_kind[parts[p]] != "float32"}
            numbers = Numbers(backend=backend, precision=precision)
            if large and numbers not in out:
                out.append(numbers)
    return out


_BY_KIND: dict[Backend, tuple[dict[Kind, Precision], ...]] = {
    "openvino": (
        {"convolutions": "int8", "products": "int8", "small": "bfloat16"},
        {"convolutions": "bfloat16", "products": "bfloat16", "small": "bfloat16"},
    ),
    "onnxruntime": ({"convolutions": "int8", "products": "int8", "small": "float32"},),
}


def alone(numbers: Numbers, part: str) -> Numbers | None:
    """The same format for one part only, all else in float; None where the part is in float anyway."""
    wanted = numbers.precision.get(part, "float32")
    if wanted in ("float32", "bfloat16"):
        return None
    return numbers.model_copy(update={"precision": {part: wanted}})


def without(numbers: Numbers, part: str) -> Numbers:
    """The same formats with one part left in float."""
    return numbers.model_copy(update={"precision": {p: v for p, v in numbers.precision.items() if p != part}})
