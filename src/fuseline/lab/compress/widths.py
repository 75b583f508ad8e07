"""Finding heads and hidden widths of linear layers in a part, by watching the order in which layers are called.

Dimensions: U units, K places, D width, F hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fuseline.lab.compress.heads import Attention, attentions
from fuseline.lab.compress.probe import Part
from fuseline.lab.compress.units import Axis, Units, inputs_of, outputs_of


@dataclass(frozen=True)
class _Call:
    path: str
    layer: nn.Linear
    given: tuple[int, ...]
    got: tuple[int, ...]


def find_heads(part: Part) -> list[Units]:
    """Attention heads. What reads them is the next linear layer called after the projections that takes as much.

    Weights beside them that have a last axis of one entry a head (Swin's position biases) are cut with them.
    """
    calls = _calls(part)
    return [units for a in _own(part) if (units := _heads(part.model, a, calls)) is not None]


def find_widths(part: Part) -> list[Units]:
    """Hidden widths of feed-forward networks: a linear layer whose output, but for an activation, the next one reads.

    Gated ones have two of the first kind (T5 1.1), or one of twice the width (ModernBERT). Whether nothing else reads
    that output is for the proof of the cut to say.
    """
    calls = _calls(part)
    claimed = {name for a in _own(part) for name in a.names}
    claimed |= {axis.module for units in find_heads(part) for axis in units.read}
    found, used = [], set[str]()
    for i, reader in enumerate(calls[1:], start=1):
        makers = _makers(calls[:i], reader)
        paths = {reader.path, *(m.path for m in makers)}
        if makers and not paths & (claimed | used):
            used |= paths
            found.append(_hidden(makers, reader))
    return found


def tie_heads(part: Part, found: Sequence[Units]) -> Units | None:
    """The same heads of all these layers as one, with the tables that have a column for each: T5 and MPNet add one
    table of position biases to every layer's attention."""
    if not found or len({units.count for units in found}) != 1:
        return None
    places = torch.arange(found[0].count)[:, None]
    made = {(axis.module, axis.tensor): axis for units in found for axis in units.made}
    for path, table in part.modules():
        if isinstance(table, nn.Embedding) and table.embedding_dim == len(places):
            made.setdefault((path, "weight"), Axis(path, "weight", 1, places))
    read = tuple(axis for units in found for axis in units.read)
    attention = tuple(a for units in found for a in units.attentions)
    return replace(found[0], made=tuple(made.values()), read=read, attentions=attention)


def _own(part: Part) -> list[Attention]:
    return [a for root in part.roots for a in attentions(part.model.get_submodule(root), prefix=root)]


def _calls(part: Part) -> list[_Call]:
    """The first call of every linear layer, in order."""
    calls: dict[str, _Call] = {}

    def watch(path: str, layer: nn.Linear) -> Any:
        def look(module: nn.Module, args: tuple[Tensor, ...], got: Tensor) -> None:
            calls.setdefault(path, _Call(path, layer, tuple(args[0].shape), tuple(got.shape)))

        return layer.register_forward_hook(look)

    # Not a class of its own over a linear layer: an adapter's, say, whose weights mean something else.
    hooks = [watch(path, layer) for path, layer in part.modules() if type(layer) is nn.Linear]
    try:
        part.run()
    finally:
        for hook in hooks:
            hook.remove()
    return list(calls.values())


def _heads(model: nn.Module, attention: Attention, calls: Sequence[_Call]) -> Units | None:
    inner = attention.heads * attention.size
    order = {call.path: i for i, call in enumerate(calls)}
    if not all(name in order for name in attention.names):
        return None
    last = max(order[name] for name in attention.names)
    reader = next((call for call in calls[last + 1 :] if call.layer.in_features == inner), None)
    if reader is None:
        return None
    one_HK = torch.arange(inner).view(attention.heads, attention.size)
    made: list[Axis] = []
    for (_, parts), name in zip(attention.projections, attention.names, strict=True):
        places = torch.cat([one_HK + i * inner for i in range(parts)], dim=1)
        made += outputs_of(model.get_submodule(name), name, places)
    owner = model.get_submodule(attention.path)
    for name, weight in owner.named_parameters():
        inside = attention.path + "." + name.rpartition(".")[0] if "." in name else attention.path
        if inside not in (*attention.names, reader.path) and weight.dim() > 1 and weight.shape[-1] == attention.heads:
            places = torch.arange(attention.heads)[:, None]
            made.append(Axis(inside, name.rpartition(".")[2], weight.dim() - 1, places))
    read = (inputs_of(reader.path, one_HK),)
    return Units("heads", attention.path, tuple(made), read, step=1, attentions=(attention,))


def _makers(before: Sequence[_Call], reader: _Call) -> tuple[_Call, ...]:
    """The layers just before whose output `reader` may read: one, or two with the same shapes and the same parent."""
    last = before[-1]
    if last.got[:-1] != reader.given[:-1] or last.got[-1] not in (reader.given[-1], 2 * reader.given[-1]):
        return ()
    if len(before) > 1:
        other = before[-2]
        twin = (other.given, other.got) == (last.given, last.got)
        if twin and last.got == reader.given and _parent(other.path) == _parent(last.path) == _parent(reader.path):
            return other, last
    return (last,)


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _hidden(makers: Sequence[_Call], reader: _Call) -> Units:
    width = reader.layer.in_features
    one = torch.arange(width)[:, None]
    made: list[Axis] = []
    for maker in makers:
        parts = maker.layer.out_features // width
        places = torch.cat([one + i * width for i in range(parts)], dim=1)
        made += outputs_of(maker.layer, maker.path, places)
    return Units("feed_forward", makers[0].path, tuple(made), (inputs_of(reader.path, one),))
