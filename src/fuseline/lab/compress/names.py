"""Which part of the fused model a module or a graph's node belongs to."""

from __future__ import annotations

from collections.abc import Sequence

FUSION = "fusion.head"
"""the part behind the inputs: fusion and head. No input can have this name, since names hold no dot."""


def part_of(name: str, names: Sequence[str]) -> str | None:
    """The part of a module path or a node name (`encoders.1.layer.3/node_7`); None for what no module made.

    `names`: the inputs in the model's order.
    """
    match name.split("/", 1)[0].split("."):
        case ["encoders" | "adapters", index, *_] if index.isdigit() and int(index) < len(names):
            return names[int(index)]
        case ["fusion" | "head", *_]:
            return FUSION
    return None


def modules_of(part: str, names: Sequence[str]) -> tuple[str, ...]:
    """Paths of the modules that make a part."""
    if part == FUSION:
        return ("fusion", "head")
    index = names.index(part)
    return (f"encoders.{index}", f"adapters.{index}")
