"""An ONNX graph taken apart for rewriting, and written again without what nobody uses."""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from fuseline.errors import FuselineError
from fuseline.lab.compress.names import part_of

GRAPH: Final = "graph.onnx"
FLOAT_WEIGHTS: Final = "weights.safetensors"
WEIGHTS: Final = "weights.bin"
INLINE = 1024
"""bytes below which a constant stays in the graph"""
SMALL_FILE = 256 * 1024
"""bytes of weights below which all of them stay in the graph: one file instead of two"""
ALIGNMENT = 64
CONTRIB = "com.microsoft"
BATCH = "batch"


class Graph:
    """Nodes by their (unique) names and constants as arrays.

    Nodes may be added anywhere and taken away: :meth:`proto` sorts them and drops what leads to no output.
    """

    def __init__(self, proto: onnx.ModelProto, names: Sequence[str], trained: Iterable[str] = ()) -> None:
        """
        Args:
            proto: the model, with the content of its constants. It is taken over.
            names: inputs of the fused model in its order.
            trained: names of the weights in its state dict.
        """
        self._shell = proto
        self.names = tuple(names)
        self.trained = frozenset(trained)
        self.outputs = [o.name for o in proto.graph.output]
        self.inputs = [i.name for i in proto.graph.input]
        self.arrays: dict[str, np.ndarray] = {}
        self._learnt: set[str] = set()
        for tensor in proto.graph.initializer:
            self.arrays[tensor.name] = onnx.numpy_helper.to_array(tensor)
            if tensor.name.removeprefix("model.") in self.trained or tensor.name.endswith("_stored"):
                self._learnt.add(tensor.name)
        self.nodes: dict[str, onnx.NodeProto] = {}
        for node in proto.graph.node:
            if not node.name or node.name in self.nodes:
                node.name = f"{node.name or '/' + node.op_type}_{len(self.nodes)}"
            self.nodes[node.name] = node

    @classmethod
    def read(cls, folder: Path, names: Sequence[str]) -> Graph:
        """A float model's graph.onnx with weights.safetensors beside it. Raises FuselineError ``quantise_failed``."""
        try:
            proto = onnx.load(folder / GRAPH)
            with (folder / FLOAT_WEIGHTS).open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        except (OSError, ValueError) as error:
            raise FuselineError(
                "quantise_failed",
                f"{folder} is not a float model's {GRAPH} with {FLOAT_WEIGHTS}: {error}",
                "compress the package that was trained, not one that is quantised already",
            ) from None
        return cls(proto, names, header)

    # --- looking ----------------------------------------------------------------------------------------------------

    def part(self, node: onnx.NodeProto) -> str | None:
        return part_of(node.name, self.names)

    def makers(self) -> dict[str, onnx.NodeProto]:
        """Tensor -> the node that makes it."""
        return {output: node for node in self.nodes.values() for output in node.output if output}

    def users(self) -> dict[str, list[onnx.NodeProto]]:
        """Tensor -> the nodes that read it, once each, those inside of a loop's or branch's body counted as its own."""
        found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes.values():
            for name in dict.fromkeys(reads(node)):
                found[name].append(node)
        return found

    def learnt(self, name: str) -> bool:
        """Whether a constant was trained. Others are what the options say: mel filters, Fourier bases, means of
        pixels. Nothing is gained by rounding those, and what enters the model is read through them."""
        return name in self._learnt

    def fresh(self, wanted: str) -> str:
        """`wanted`, or it with a number behind, as no tensor and no node has it yet."""
        taken = {*self.arrays, *self.nodes, *self.inputs}
        name, turn = wanted, 1
        while name in taken:
            name, turn = f"{wanted}_{turn}", turn + 1
        return name

    # --- changing ---------------------------------------------------------------------------------------------------

    def add(
        self, op: str, inputs: Sequence[str], output: str, name: str, *, domain: str = "", **attributes: Any
    ) -> onnx.NodeProto:
        """A new node. Its name starts with its module's path, as all others do."""
        assert name not in self.nodes, name
        node = onnx.helper.make_node(op, list(inputs), [output], name=name, domain=domain, **attributes)
        self.nodes[name] = node
        return node

    def constant(self, name: str, array: np.ndarray, *, learnt: bool = False) -> str:
        self.arrays[name] = np.asarray(array, order="C")  # np.ascontiguousarray would make a scalar a vector
        if learnt:
            self._learnt.add(name)
        return name

    def remove(self, node: onnx.NodeProto) -> None:
        del self.nodes[node.name]

    # --- writing ----------------------------------------------------------------------------------------------------

    def proto(self, outputs: Sequence[str] | None = None) -> onnx.ModelProto:
        """The model with its constants inside. `outputs`: other tensors than the model's, whose types are left open."""
        wanted = list(self.outputs if outputs is None else outputs)
        nodes = self._needed(wanted)
        used = {name for node in nodes for name in reads(node)} | set(wanted)
        out = onnx.ModelProto()
        out.CopyFrom(_without_content(self._shell))
        out.graph.node.extend(nodes)
        out.graph.initializer.extend(
            onnx.numpy_helper.from_array(array, name) for name, array in self.arrays.items() if name in used
        )
        if outputs is not None:
            del out.graph.output[:]
            out.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        if any(node.domain == CONTRIB for node in nodes) and not any(o.domain == CONTRIB for o in out.opset_import):
            out.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
        return out

    def sorted(self) -> list[onnx.NodeProto]:
        return self._needed(self.outputs)

    def _needed(self, outputs: Iterable[str]) -> list[onnx.NodeProto]:
        """The nodes that lead to `outputs`, each behind its makers and else in the order they were added in."""
        makers, place = self.makers(), {name: i for i, name in enumerate(self.nodes)}
        needed: dict[str, onnx.NodeProto] = {}
        stack = [makers[name] for name in outputs if name in makers]
        while stack:
            node = stack.pop()
            if node.name not in needed:
                needed[node.name] = node
                stack.extend(makers[name] for name in reads(node) if name in makers)
        waits: dict[str, int] = {}
        followers: dict[str, list[str]] = defaultdict(list)
        for node in needed.values():
            before = {makers[name].name for name in reads(node) if name in makers}
            waits[node.name] = len(before)
            for maker in before:
                followers[maker].append(node.name)
        ready = [(place[name], name) for name, count in waits.items() if count == 0]
        heapq.heapify(ready)
        order = []
        while ready:
            _, name = heapq.heappop(ready)
            order.append(needed[name])
            for follower in followers[name]:
                waits[follower] -= 1
                if waits[follower] == 0:
                    heapq.heappush(ready, (place[follower], follower))
        assert len(order) == len(needed), "the rewritten graph has a circle"
        return order

    def write(self, folder: Path) -> tuple[str, ...]:
        """Write graph.onnx, and weights.bin unless the weights are small. Gives the names of the files."""
        proto = self.proto()
        big = [t for t in proto.graph.initializer if len(t.raw_data) >= INLINE]
        files = [GRAPH]
        if sum(len(t.raw_data) for t in big) >= SMALL_FILE:
            files.append(WEIGHTS)
            with (folder / WEIGHTS).open("wb") as file:
                for tensor in big:
                    file.write(b"\0" * (-file.tell() % ALIGNMENT))
                    place = {"location": WEIGHTS, "offset": file.tell(), "length": len(tensor.raw_data)}
                    file.write(tensor.raw_data)
                    tensor.ClearField("raw_data")
                    tensor.data_location = onnx.TensorProto.EXTERNAL
                    for key, value in place.items():
                        tensor.external_data.add(key=key, value=str(value))
        (folder / GRAPH).write_bytes(proto.SerializeToString(deterministic=True))
        return tuple(files)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that a node reads, those from around the body of a loop or branch included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {t.name for t in graph.initializer} | {i.name for i in graph.input}
            own |= {output for inner in graph.node for output in inner.output}
            for inner in graph.node:
                yield from (name for name in reads(inner) if name not in own)
            yield from (o.name for o in graph.output if o.name not in own)


def replace_input(node: onnx.NodeProto, old: str, new: str) -> None:
    """Let a node read another tensor; not inside of bodies."""
    node.input[:] = [new if name == old else name for name in node.input]


def attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _without_content(proto: onnx.ModelProto) -> onnx.ModelProto:
    shell = onnx.ModelProto(
        ir_version=proto.ir_version,
        producer_name=proto.producer_name,
        opset_import=proto.opset_import,
        functions=proto.functions,
    )
    shell.graph.name = proto.graph.name
    shell.graph.input.extend(proto.graph.input)
    shell.graph.output.extend(proto.graph.output)
    return shell
