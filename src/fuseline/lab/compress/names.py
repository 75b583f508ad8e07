"""Which part of the fused model a module or a graph's node belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from fuseline.runtime.nodes import FUSION
from fuseline.runtime.nodes import part_of as part_of_module


def part_of(name: str, names: Sequence[str]) -> str | None:
    """The part of a module path or a node name (`encoders.1.layer.3/node_7`); None for what no module made.

    `names`: the inputs in the model's order.
    """
    return part_of_module(name.split("/", 1)[0], names)


def modules_of(part: str, names: Sequence[str]) -> tuple[str, ...]:
    """Paths of the modules that make a part."""
    if part == FUSION:
        return ("fusion", "head")
    index = names.index(part)
    return (f"encoders.{index}", f"adapters.{index}")


__all__ = ["FUSION", "modules_of", "part_of"]
