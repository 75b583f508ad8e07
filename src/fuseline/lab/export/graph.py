"""From a trained FusionModel to graph.onnx + weights.safetensors, and step.onnx where it writes texts.

The weights are written once: graph.onnx refers to the bytes inside weights.safetensors as ONNX external data, so the
two files cannot disagree and the package is not twice its size.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fuseline.errors import FuselineError
from fuseline.lab.decoders.base import Decoder
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.export.trees import plant
from fuseline.lab.model import FusionModel
from fuseline.lab.stacked.head import TreeHead
from fuseline.lab.steps import decoder_of
from fuseline.modalities import Modality
from fuseline.package.format import STEP
from fuseline.runtime.backend import GRAPH, IDS, OUTPUT

EXAMPLE_BATCH = 3
MAX_BATCH = 4096
SMALL = 1024
"""bytes below which a constant stays in the graph"""


class Whole(nn.Module):
    """Takes arrays under names that are valid arguments and gives outputs as a tuple: what the exporter can name."""

    def __init__(self, model: FusionModel, keys: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.keys, self.outputs = model, keys, outputs

    def forward(self, arrays: dict[str, Tensor], present: Tensor) -> tuple[Tensor, ...]:
        out = self.model(arrays, present)
        return tuple(out[name] for name in self.outputs)


def example(
    modalities: Mapping[str, Modality], model: FusionModel
) -> tuple[dict[str, Tensor], dict[str, dict[int, Any]]]:
    """Random arrays of batch EXAMPLE_BATCH with the dynamic dimensions beside them. One batch symbol for all."""
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    generator = np.random.default_rng(0)
    arrays: dict[str, Tensor] = {}
    dims: dict[str, dict[int, Any]] = {}
    for i, (name, modality) in enumerate(modalities.items()):
        dummy = modality.collate([None] * EXAMPLE_BATCH)  # valid whatever the modality; then lengthened
        bounds, lengths = {}, {}
        for key, (low, high) in modality.lengths.items():
            least = model.traced_from(name, key, low)
            bounds[key] = (least if least < high else low, high)
            lengths[key] = torch.export.Dim(f"{key}_{i}", min=bounds[key][0], max=high)
        for key, spec in modality.arrays().items():
            shape = [EXAMPLE_BATCH]
            dims[f"{name}.{key}"] = {0: batch}
            for axis, size in enumerate(spec.shape[1:], start=1):
                if isinstance(size, str):
                    dims[f"{name}.{key}"][axis] = lengths[size]
                    shape.append(example_length(*bounds[size], modality))
                else:
                    shape.append(size)
            array = np.zeros(shape, dtype=spec.dtype)
            old = dummy[key]
            if array.ndim == 1 or array.shape == old.shape:
                array[...] = old
            elif np.issubdtype(array.dtype, np.floating):
                array[...] = generator.normal(size=shape, scale=0.1)
            else:
                array[...] = old.reshape(-1)[0]
            arrays[f"{name}.{key}"] = torch.from_numpy(array)
    return arrays, dims


def example_length(low: int, high: int, modality: Modality) -> int:
    """A length inside the bounds that is neither 0, 1 nor the batch: the exporter specialises on those."""
    step = int(getattr(modality, "length_step", 1))
    length = min(high, max(low * 2, 7 * step))
    return max(low, length - length % step) if step > 1 else length


def _trace(model: FusionModel, arrays: dict[str, Tensor], dims: dict[str, Any], outputs: tuple[str, ...]) -> Any:
    present = torch.ones(EXAMPLE_BATCH, len(model.names), dtype=torch.bool)
    present[0, 0] = False
    batch = next(iter(dims.values()))[0]
    return trace(
        Whole(model, tuple(arrays), outputs),
        (arrays, present),
        shapes=(dims, {0: batch}),
        inputs=[*arrays, "present"],
        outputs=[OUTPUT + name for name in outputs],
    )


def trace(module: nn.Module, given: tuple[Any, ...], *, shapes: Any, inputs: list[str], outputs: list[str]) -> Any:
    """A module as an ONNX model. Raises FuselineError ``export_failed``."""
    talk = io.StringIO()  # the exporter prints its steps and warns of its own internals; errors still raise
    quiet = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript"), logging.getLogger("onnx_ir")
    levels = [q.level for q in quiet]
    for q in quiet:
        q.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(talk), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                given,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=inputs,
                output_names=outputs,
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # torch.onnx raises many private types; the user needs one with a name
        raise FuselineError(
            "export_failed", f"the model cannot be exported to ONNX: {str(error)[:2000]}", "report this with the recipe"
        ) from error
    finally:
        for q, level in zip(quiet, levels, strict=True):
            q.setLevel(level)
    assert program is not None
    return program.model_proto


def export_graph(model: FusionModel, modalities: Mapping[str, Modality], folder: Path) -> None:
    """Write graph.onnx, for a decoder step.onnx too, and their weights.safetensors. The model must be in eval mode, on
    the CPU, adapters merged."""
    encoders = [encoder for encoder in model.encoders if isinstance(encoder, Encoder)]
    for encoder in encoders:
        encoder.fold()
    try:
        _write_graph(model, modalities, folder)
    finally:
        for encoder in encoders:
            encoder.unfold()


def _write_graph(model: FusionModel, modalities: Mapping[str, Modality], folder: Path) -> None:
    arrays, dims = example(modalities, model)
    with torch.no_grad():
        first = model(arrays, torch.ones(EXAMPLE_BATCH, len(model.names), dtype=torch.bool))
    graphs = {GRAPH: _trace(model, arrays, dims, tuple(first))}
    if (decoder := decoder_of(model)) is not None:
        graphs[STEP] = trace_step(decoder, first)
    state = {k: v.detach().contiguous() for k, v in model.state_dict().items()}
    path = folder / "weights.safetensors"
    seen: dict[int, str] = {}
    unique = {k: (v.clone() if seen.setdefault(v.data_ptr(), k) != k else v) for k, v in state.items() if v.numel()}
    save_file(unique, path, metadata={"format": "pt"})
    if isinstance(model.head, TreeHead):
        plant(graphs[GRAPH], model.head.trees)
    for name, proto in graphs.items():
        link_weights(proto, path)
        strip(proto)
        (folder / name).write_bytes(proto.SerializeToString(deterministic=True))


class Step(nn.Module):
    """One token more: what a decoder remembers in, logits and what has grown out."""

    def __init__(self, decoder: Decoder, grown: tuple[str, ...]) -> None:
        super().__init__()
        self.decoder, self.grown = decoder, grown

    def forward(self, state: dict[str, Tensor], ids: Tensor) -> tuple[Tensor, ...]:
        said = self.decoder.step(ids, state)
        return (said.logits_BLV[:, -1].float(), *(said.state[name] for name in self.grown))


def trace_step(decoder: Decoder, first: Mapping[str, Tensor]) -> Any:
    """The graph of one step. `first`: outputs of the model on an example, with what its decoder then remembers."""
    state = {k: v for k, v in first.items() if k.startswith(("memory.", "cache."))}
    ids = torch.zeros(EXAMPLE_BATCH, 1, dtype=torch.int64)
    with torch.no_grad():
        for _ in range(2):  # longer than 1: the exporter would take that for a constant
            state = decoder.step(ids, state).state
    batch, memory, past = (
        torch.export.Dim(name, min=1, max=high) for name, high in (("batch", MAX_BATCH), ("T", 65536), ("P", 65536))
    )
    dims: dict[str, dict[int, Any]] = {}
    for name in state:
        part, key = name.split(".")[:2]
        axis = decoder.growing[key] if part == "cache" else 1 if key == "mask" else 2
        dims[name] = {0: batch, axis: past if part == "cache" else memory}
    grown = tuple(name for name in state if name.startswith("cache."))
    return trace(
        Step(decoder, grown),
        (state, ids),  # a dict at the end would be taken for keyword arguments
        shapes=(dims, {0: batch}),
        inputs=[*state, IDS],
        outputs=[OUTPUT + "logits", *(OUTPUT + name for name in grown)],
    )


def strip(proto: onnx.ModelProto) -> None:
    """The exporter notes stack traces and paths of this machine on every node: nobody's business, and half the file."""
    proto.producer_name, proto.producer_version, proto.doc_string = "fuseline", "", ""
    graph = proto.graph
    graph.doc_string = ""
    for node in graph.node:
        node.name = f"{scope_of(node)}/{node.name}"
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.doc_string = ""


def scope_of(node: onnx.NodeProto) -> str:
    """The module that a node came from, e.g. `encoders.1.backbone.model.layer.3`; `` where the exporter lost it.

    Node names carry it from here on: compression picks the nodes of one module by it, and a profile adds up by it.
    """
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = [s for s in ast.literal_eval(entry.value) if s.startswith("model.")]
            return scopes[-1].removeprefix("model.") if scopes else ""
    return ""


def link_weights(proto: onnx.ModelProto, weights: Path) -> None:
    """Let every initialiser whose bytes stand in the safetensors file refer to them there.

    The exporter stores the weight of a linear layer transposed; such a one becomes the stored weight and a Transpose,
    which the runtime folds away when it loads.
    """
    with weights.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        body = file.read()
    places: dict[bytes, tuple[int, int]] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            places[body[start:end]] = (8 + size + start, end - start)
    turns = []
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.nbytes < SMALL:
            continue
        place = places.get(array.tobytes())
        if place is None and array.ndim == 2 and (place := places.get(array.T.tobytes())) is not None:
            name = tensor.name
            tensor.name += "_stored"
            tensor.dims[:] = reversed(tensor.dims)
            turns.append(onnx.helper.make_node("Transpose", [tensor.name], [name], name=f"{name}_turn", perm=[1, 0]))
        if place is not None:
            _refer(tensor, weights.name, *place)
    for turn in reversed(turns):
        proto.graph.node.insert(0, turn)


def _refer(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
