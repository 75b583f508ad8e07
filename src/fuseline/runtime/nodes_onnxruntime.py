"""onnxruntime's profiler. Its trace names a node as onnxruntime does after its fusions (`BiasGelu_token_3`), so the
graph as it is after them is written out, too: the arrays that a node makes tell which node of ours it stands for."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fuseline.package import Package, read_member
from fuseline.runtime.backend import GRAPH
from fuseline.runtime.flops import INTEGER, flops
from fuseline.runtime.nodes import Arrays, Counted, NodeCost, module_of
from fuseline.runtime.onnxruntime import open_session, options_for
from fuseline.runtime.wire import OnnxGraph, OnnxNode, read_onnx

_ENDING = "_kernel_time"
_EXTERNAL = "session.optimized_model_external_initializers_"


def count(package: Package, threads: int, groups: Sequence[tuple[Sequence[Arrays], int]]) -> list[Counted]:
    """See :func:`fuseline.runtime.nodes.count_nodes`. Takes as much room in the temporary folder as the weights do."""
    ours = read_onnx(read_member(package, GRAPH)).nodes
    with TemporaryDirectory(prefix="fuseline-") as folder:
        options = options_for(threads)
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/trace"
        options.optimized_model_filepath = f"{folder}/graph.onnx"
        options.add_session_config_entry(_EXTERNAL + "file_name", "weights")
        options.add_session_config_entry(_EXTERNAL + "min_size_in_bytes", "1024")
        session = open_session(package, options)
        theirs = read_onnx((Path(folder) / "graph.onnx").read_bytes())
        names = [o.name for o in session.get_outputs()]
        inputs = {i.name for i in session.get_inputs()}
        walls = []
        for batches, rounds in groups:
            feeds = [{k: v for k, v in batch.items() if k in inputs} for batch in batches]
            for feed in feeds:
                session.run(names, feed)
            start = time.perf_counter()
            for feed in feeds * rounds:
                session.run(names, feed)
            walls.append((time.perf_counter() - start) / (rounds * len(batches)))
        trace = json.loads(Path(session.end_profiling()).read_bytes())
    modules = modules_of(ours, theirs.nodes)
    runs = iter(_runs(trace))
    out = []
    for (batches, rounds), seconds in zip(groups, walls, strict=True):
        for _ in batches:  # the first round warms up
            next(runs)
        events = [event for _ in range(rounds * len(batches)) for event in next(runs)]
        costs = _costs(events, rounds * len(batches), theirs, modules)
        out.append(Counted(seconds, costs, any(module_of(n.name) for n in ours)))
    return out


def _runs(trace: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The nodes' events of each run, in order."""
    runs = sorted((e for e in trace if e.get("name") == "model_run"), key=lambda e: e["ts"])
    nodes = [e for e in trace if e.get("cat") == "Node" and e["name"].endswith(_ENDING)]
    nodes.sort(key=lambda e: e["ts"])
    out, at = [], 0
    for run in runs:
        events, until = [], run["ts"] + run["dur"]
        while at < len(nodes) and nodes[at]["ts"] <= until:
            if nodes[at]["ts"] >= run["ts"]:
                events.append(nodes[at])
            at += 1
        out.append(events)
    return out


def _costs(
    events: Sequence[dict[str, Any]], runs: int, graph: OnnxGraph, modules: dict[str, str]
) -> tuple[NodeCost, ...]:
    nodes = {n.name: n for n in graph.nodes}
    by_name = defaultdict(list)
    for event in events:
        by_name[event["name"].removesuffix(_ENDING)].append(event)
    out = []
    for name, same in by_name.items():
        node = nodes.get(name, OnnxNode(name))
        op = same[0]["args"]["op_name"]
        counts = [_flops(op, node, graph, e["args"]) for e in same]
        known = [c for c in counts if c is not None]
        eight = op in INTEGER or (op == "MatMulNBits" and node.attributes.get("accuracy_level") == 4)
        out.append(
            NodeCost(
                module=modules.get(name, "") or module_of(name),
                op=op,
                seconds=sum(e["dur"] for e in same) / 1e6 / runs,
                flops=sum(known) / runs if len(known) == len(counts) else None,
                precision="int8" if eight else "float32",
            )
        )
    return tuple(out)


def _flops(op: str, node: OnnxNode, graph: OnnxGraph, facts: dict[str, Any]) -> float | None:
    told, outputs = (
        [tuple(shape) for entry in facts.get(key, ()) for shape in entry.values()]
        for key in ("input_type_shape", "output_type_shape")
    )
    inputs: list[tuple[int, ...]] = []
    for name in filter(None, node.inputs):
        constant = graph.constants.get(name)
        if told and constant in (None, told[0]):
            inputs.append(told.pop(0))
        elif constant is not None:  # the trace leaves out a weight that onnxruntime has packed for itself
            inputs.append(constant)
    return flops(op, [*inputs, *told], outputs, str(node.attributes.get("equation", "")))


def modules_of(ours: Sequence[OnnxNode], theirs: Sequence[OnnxNode]) -> dict[str, str]:
    """Name of an optimised node -> module. In this order: its own name; the node of ours that made the array which it
    makes (`X_nchwc` makes X in another layout); the node that makes its input; the nodes that take what it makes."""
    makers = {out: module_of(n.name) for n in ours for out in n.outputs}
    out: dict[str, str] = {}
    made: dict[str, str] = {}
    for node in theirs:
        candidates = [module_of(node.name), *(makers.get(o, "") for o in node.outputs)]
        candidates += [makers.get(node.name.removesuffix("_nchwc"), ""), *(made.get(i, "") for i in node.inputs)]
        out[node.name] = next(filter(None, candidates), "")
        made |= dict.fromkeys(node.outputs, out[node.name])
    takers: dict[str, str] = {}
    for node in reversed(theirs):
        out[node.name] = out[node.name] or next(filter(None, (takers.get(o, "") for o in node.outputs)), "")
        if out[node.name]:
            takers |= dict.fromkeys(node.inputs, out[node.name])
    return out
