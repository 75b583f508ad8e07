"""OpenVINO's profiler. Its compiled graph keeps, for every node, the names of ours that were fused into it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fuseline.package import Package
from fuseline.runtime.flops import flops
from fuseline.runtime.nodes import Arrays, Counted, NodeCost, module_of
from fuseline.runtime.openvino import OpenVino, import_openvino, open_core, read_graph

_PRECISIONS = {"i8": "int8", "u8": "int8", "bf16": "bfloat16"}
"""how the name of a kernel ends, e.g. brgemm_avx512_I8; all others compute in float32"""


def count(package: Package, threads: int, groups: Sequence[tuple[Sequence[Arrays], int]]) -> list[Counted]:
    """See :func:`fuseline.runtime.nodes.count_nodes`. Every group has its graph compiled anew, since the profiler's
    means over all runs cannot be set back."""
    ov = import_openvino()
    graph, weights = read_graph(ov, open_core(ov), package)
    named = any(module_of(op.get_friendly_name()) for op in graph.get_ops())
    out = []
    for batches, rounds in groups:
        backend = OpenVino(package, threads, count=True)
        for batch in batches:
            _, request = backend.counted(batch)
        first = _times(request)
        start = time.perf_counter()
        for batch in [b for _ in range(rounds) for b in batches]:
            _, request = backend.counted(batch)
        seconds = (time.perf_counter() - start) / (rounds * len(batches))
        last = _times(request)
        taken = {
            name: max(0.0, mean * (rounds + 1) - first.get(name, (0.0, ""))[0]) / rounds
            for name, (mean, _) in last.items()
        }
        kernels = {name: kernel for name, (_, kernel) in last.items()}
        work = _flops_of(graph, batches)
        out.append(Counted(seconds, _costs(backend.model, taken, kernels, work), named))
    del weights  # only now: the graph read its constants there
    return out


_PRODUCTS = ("FullyConnected", "MatMul", "Convolution", "GroupConvolution", "ScaledDotProductAttention")
"""how the kinds of nodes begin that multiply; a `Subgraph` may, too"""
_ANY = ((1, 1), (1, 1))
"""shapes with which every kind of product costs something"""


def _times(request: Any) -> dict[str, tuple[float, str]]:
    """Node -> (mean seconds over the runs so far, kernel), of those that ran."""
    return {
        p.node_name: (p.real_time.total_seconds(), p.exec_type)
        for p in request.get_profiling_info()
        if p.status == p.Status.EXECUTED
    }


@dataclass
class _Ran:
    """A node of the compiled graph."""

    name: str
    op: str
    module: str
    originals: set[str]
    """names of ours that it stands for"""
    products: list[float | None] = field(default_factory=list)
    """operations of those that are products"""


def _costs(
    model: Any, seconds: Mapping[str, float], kernels: Mapping[str, str], work: Mapping[str, float | None]
) -> tuple[NodeCost, ...]:
    ran: list[_Ran] = []
    for node in model.get_runtime_model().get_ordered_ops():
        name = node.get_friendly_name()
        if name in seconds:
            facts = node.get_rt_info()
            names = [name, *str(facts["originalLayersNames"].value).split(",")]
            module = next(filter(None, map(module_of, names)), "")
            ran.append(_Ran(name, str(facts["layerType"].value), module, set(names)))
    left = _share_out(ran, work)
    out: list[NodeCost] = []
    for node in ran:
        # What the compiler made itself (a change of layout or format) names no module: the one before caused it.
        module = node.module or (out[-1].module if out else "")
        known = [value for value in node.products if value is not None]
        flop = sum(known) if len(known) == len(node.products) else None
        if not node.products and node.op.startswith(_PRODUCTS):
            flop = None
        precision = _PRECISIONS.get(kernels[node.name].rpartition("_")[2].lower(), "float32")
        out.append(NodeCost(module, node.op, seconds[node.name], flop, precision))
    for name, flop in left.items():  # nobody knows in which node it was done, only that it was
        same = [n for n in out if n.flops and n.module.split(".")[:2] == module_of(name).split(".")[:2]]
        precision = Counter(n.precision for n in same).most_common(1)[0][0] if same else "float32"
        out.append(NodeCost(module_of(name), "", 0.0, flop, precision))
    return tuple(out)


def _share_out(ran: Sequence[_Ran], work: Mapping[str, float | None]) -> dict[str, float | None]:
    """Give every product of the exported graph to the node that computes it; what is left over is returned.

    A node keeps the names of what was fused into it, but a linear layer may keep that of its bias alone, and attention
    that of one of its two products: these are known by their module. What then has no name at all goes in order, where
    as many products are left as nodes.
    """
    left = dict(work)
    multiply = [node for node in ran if node.op.startswith(_PRODUCTS)]
    for node in (*multiply, *(n for n in ran if n.op == "Subgraph")):
        node.products += [left.pop(name) for name in sorted(node.originals & left.keys())]
    for node in multiply:
        mine = [name for name in left if module_of(name) == node.module != ""]
        if mine and not node.products:
            node.products.append(left.pop(mine[0]))
    for name in list(left):
        holder = next((n for n in ran if n.products and n.module == module_of(name) != ""), None)
        if holder is not None:
            holder.products.append(left.pop(name))
    bare = [node for node in multiply if not node.products]
    if len(bare) == len(left):
        for node, name in zip(bare, list(left), strict=True):
            node.module = node.module or module_of(name)
            node.products.append(left.pop(name))
    return left


def _flops_of(graph: Any, batches: Sequence[Arrays]) -> dict[str, float | None]:
    """Operations by node of the graph as it was exported, a mean over batches: what has none is left out."""
    totals: dict[str, list[float | None]] = defaultdict(list)
    for batch in batches:
        graph.reshape({i: list(batch[i.get_any_name()].shape) for i in graph.inputs})
        for name, value in _one(graph):
            totals[name].append(value)
    return {
        name: None if any(v is None for v in values) else sum(v or 0.0 for v in values) / len(batches)
        for name, values in totals.items()
    }


def _one(graph: Any) -> Iterator[tuple[str, float | None]]:
    for op in graph.get_ordered_ops():
        kind = op.get_type_name()
        if flops(kind, _ANY, _ANY) == 0.0:
            continue
        if any(p.get_partial_shape().is_dynamic for p in (*op.inputs(), *op.outputs())):
            yield op.get_friendly_name(), None
            continue
        inputs, outputs = ([list(p.get_shape()) for p in ports] for ports in (op.inputs(), op.outputs()))
        equation = str(op.get_attributes()["equation"]) if kind == "Einsum" else ""
        yield op.get_friendly_name(), flops(kind, inputs, outputs, equation)
