"""What each node of a package's graph costs, by the runtimes' own profilers. This is the table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fuseline.package import Package

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class NodeCost:
    """One node that ran, after the runtime's own fusions. A mean over batches."""

    module: str
    """path in the fused model, e.g. `encoders.1.backbone.model.layer.3`; "" where nobody knows"""
    op: str
    seconds: float
    flops: float | None
    """multiplications and additions of products of matrices and convolutions; None where they cannot be told"""
    precision: str
    """number format of its arithmetic: float32, bfloat16 or int8"""


@dataclass(frozen=True)
class Counted:
    """One size of batch."""

    seconds: float
    """of one batch, with the profiler on: a little longer than without"""
    nodes: tuple[NodeCost, ...]
    named: bool
    """whether the graph's nodes say which module they came from"""


def count_nodes(
    kind: str, package: Package, threads: int, groups: Sequence[tuple[Sequence[Arrays], int]]
) -> list[Counted]:
    """Run each group's batches so many times, and give the costs of each group's nodes.

    Args:
        kind: the backend.
        package: opened anew, with the profiler on.
        threads: of one batch.
        groups: (batches, rounds).
    """
    match kind:
        case "onnxruntime":
            from fuseline.runtime.nodes_onnxruntime import count

            return count(package, threads, groups)
        case "openvino":
            from fuseline.runtime.nodes_openvino import count

            return count(package, threads, groups)
        case _:
            raise AssertionError(kind)


def module_of(name: str) -> str:
    """`encoders.1.layer.3/node_7` -> `encoders.1.layer.3`; "" for a node that names none."""
    module, slash, _ = name.partition("/")
    return module if slash and module.split(".", 1)[0] in ("encoders", "adapters", "fusion", "head") else ""


FUSION = "fusion.head"
"""the part behind the inputs; no input can have this name, since names hold no dot"""


def part_of(module: str, names: Sequence[str]) -> str | None:
    """The input whose encoder or adapter a module is in, or FUSION; None where nobody knows.

    `names`: the inputs in the model's order.
    """
    match module.split("."):
        case ["encoders" | "adapters", index, *_] if index.isdigit() and int(index) < len(names):
            return names[int(index)]
        case ["fusion" | "head", *_]:
            return FUSION
    return None
