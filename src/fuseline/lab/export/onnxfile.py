"""model.onnx: a package's graph.onnx with its weights inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from fuseline.errors import FuselineError
from fuseline.package import Package
from fuseline.runtime.backend import GRAPH
from fuseline.runtime.onnxruntime import WEIGHTS

MODEL, DATA = "model.onnx", "model.onnx.data"
INSIDE = 1_500_000_000
"""bytes of weights above which they become a file of their own: a protobuf message ends at 2 GB"""


def write_onnx(package: Package, folder: Path, *, external_data: bool = False) -> None:
    """Write the model and have ONNX's own checker look at it.

    Raises FuselineError ``bad_package`` or ``export_failed``.
    """
    proto = read_graph(package)
    onnx.load_external_data_for_model(proto, str(package.folder))
    rename_lengths(proto)
    del proto.graph.value_info[:]  # it follows from the rest, and names lengths by their old names
    proto.producer_name, proto.producer_version = "fuseline", str(package.manifest.get("fuseline", ""))
    del proto.metadata_props[:]
    for key, value in (("name", package.name), ("version", package.version)):
        proto.metadata_props.add(key=key, value=value)
    apart = external_data or sum(len(t.raw_data) for t in proto.graph.initializer) > INSIDE
    onnx.save_model(
        proto,
        folder / MODEL,
        save_as_external_data=apart,
        all_tensors_to_one_file=True,
        location=DATA if apart else None,
        size_threshold=1024,
    )
    check(folder / MODEL)


def read_graph(package: Package) -> onnx.ModelProto:
    """The graph without its large weights. Raises FuselineError ``bad_package`` where it names a file as its weights
    that is not one of the package's: another tool than ours would read that.
    """
    try:
        proto = onnx.load_model(package.folder / GRAPH, load_external_data=False)
    except Exception as error:  # protobuf's and onnx's private types
        raise FuselineError("bad_package", f"{GRAPH} cannot be read: {error}", "upgrade onnx") from error
    known = [name for name in WEIGHTS if name in package.manifest["members"]]
    for tensor in _tensors(proto.graph):
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value not in known:
                message = f"{GRAPH} names {entry.value!r} as its weights, which is no weights of this package"
                raise FuselineError("bad_package", message, "export it again")
    return proto


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _tensors(inner)


def rename_lengths(proto: onnx.ModelProto) -> None:
    """`T_1` of the second input becomes `notes.T`, which says whose length it is."""
    names: dict[str, str] = {}
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param and dim.dim_param != "batch":
                letter = dim.dim_param.rpartition("_")[0] or dim.dim_param
                names.setdefault(dim.dim_param, f"{value.name.rpartition('.')[0]}.{letter}")
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]


def check(path: Path) -> None:
    """ONNX's own checker, by path: it follows weights that lie beside. Raises FuselineError ``export_failed``."""
    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        raise FuselineError("export_failed", f"{path.name} is not valid ONNX: {error}", "report this") from error
