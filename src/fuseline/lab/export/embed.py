"""model-embedded.onnx: the model with tokenising and decoding inside, as far as that gives the same. B batch.

ONNX Runtime Extensions have the operators. Each input is tried alone against the package's own reading before it goes
in: ids and samples must be equal, pixels may differ as long as the answers hardly do. What is left out is said, with
the reason.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from fuseline.errors import FuselineError
from fuseline.lab.export.embed_audio import embed_audio, notes_of
from fuseline.lab.export.embed_image import NOTES, embed_image
from fuseline.lab.export.embed_text import embed_text
from fuseline.lab.export.embed_trials import Raw, try_files, try_texts
from fuseline.lab.export.nodes import EXTENSIONS, MEDIA, ML, OPSET, CannotEmbed, Nodes
from fuseline.lab.export.parity import difference
from fuseline.lab.export.parity_shapes import collated
from fuseline.lab.export.runners import OnnxFile
from fuseline.lab.export.snippet import snippet
from fuseline.modalities import MediaRoot, Modality
from fuseline.modalities.audio import Audio
from fuseline.modalities.image import Image
from fuseline.modalities.media import read_media
from fuseline.modalities.text import Text, as_text
from fuseline.progress import Voice
from fuseline.runtime import Predictor

NAME = "model-embedded.onnx"
Cells = Sequence[tuple[Mapping[str, Any], MediaRoot]]


@dataclass
class Part:
    """One input's preparation as nodes: what they read, and what they give in the place of which array."""

    nodes: Nodes
    values: dict[str, str]
    """array of the modality -> the graph's value"""
    given_B: str
    notes: tuple[str, ...] = ()
    measured: dict[str, Any] = field(default_factory=dict)

    def model(self) -> bytes:
        """Alone, for trials: outputs named as the arrays, and `given`."""
        graph = Nodes(f"{self.nodes.prefix}/out")
        outputs = []
        for key, value in {**self.values, "given": self.given_B}.items():
            graph.nodes.append(helper.make_node("Identity", [value], [key]))
            outputs.append(helper.make_empty_tensor_value_info(key))
        proto = helper.make_model(
            helper.make_graph(
                [*self.nodes.nodes, *graph.nodes], "part", self.nodes.inputs, outputs, self.nodes.constants
            ),
            opset_imports=[helper.make_opsetid(d, v) for d, v in domains().items()],
            ir_version=10,
        )
        return bytes(proto.SerializeToString())


def domains() -> dict[str, int]:
    return {"": OPSET, ML: 3, EXTENSIONS: 1, MEDIA: 1}


def make_part(name: str, modality: Modality) -> Part:
    """Raises :class:`CannotEmbed`."""
    nodes = Nodes(f"prepare/{name}")
    match modality:
        case Text():
            ids, mask, given = embed_text(nodes, modality, nodes.input(f"{name}.text", TensorProto.STRING, ["batch"]))
            said = ("the text must be in Unicode NFC",)
            return Part(nodes, {"ids": ids, "mask": mask}, given, said)
        case Image() | Audio():
            bytes_N = nodes.input(f"{name}.file", TensorProto.UINT8, [f"{name}.bytes"])
            sizes_B = nodes.input(f"{name}.file_size", TensorProto.INT64, ["batch"])
            if isinstance(modality, Image):
                picture = embed_image(nodes, modality, bytes_N, sizes_B)
                return Part(nodes, {"pixels": picture.values[0]}, picture.given_B, NOTES)
            wave = embed_audio(nodes, modality, bytes_N, sizes_B)
            values = dict(zip(("waveform", "length"), wave.values, strict=True))
            return Part(nodes, values, wave.given_B, notes_of(modality))
    raise CannotEmbed("numbers, categories and dates are cheap to prepare anywhere: see signature.json")


def write_embedded(
    folder: Path,
    signature: Mapping[str, Any],
    predictor: Predictor,
    cells: Cells,
    *,
    threads: int,
    tolerance: float,
    voice: Voice,
) -> dict[str, Any]:
    """Write model-embedded.onnx beside model.onnx; what is to stand in signature.json of it.

    Raises FuselineError ``cannot_export`` where nothing can go in, and ``parity`` where the whole gives other answers
    than its parts.
    """
    from onnxruntime_extensions import get_library_path

    library = get_library_path()
    proto = onnx.load_model(folder / "model.onnx", load_external_data=False)
    parsed = [(predictor.rows.parse(row, media), row, media) for row, media in cells]
    rows = [(p.values, row, media) for p, row, media in parsed if p.error is None]
    parts: dict[str, Part] = {}
    left_out: dict[str, str] = {}
    opset = max((o.version for o in proto.opset_import if o.domain == ""), default=0)
    for name, modality in predictor.rows.modalities.items():
        voice.say(f"embedding {name}")
        try:
            if opset < OPSET:
                raise CannotEmbed(f"the graph has opset {opset}, and {OPSET} is needed")
            part = make_part(name, modality)
            run = OnnxFile(part.model(), threads, extensions=library).run
            raw = [raw_of(name, modality, values, row, media) for values, row, media in rows]
            if isinstance(modality, Text):
                part.measured = try_texts(run, name, modality, raw)
            else:
                given = [values for values, _, _ in rows]
                part.measured = try_files(run, name, modality, raw, predictor, given)
            parts[name] = part
        except CannotEmbed as why:
            left_out[name] = str(why)
            voice.say(f"{name} is left out: {why}")
    if not parts:
        raise FuselineError(
            "cannot_export",
            "no input's preparation can be embedded: " + "; ".join(f"{n}: {why}" for n, why in left_out.items()),
            "leave --embed out",
        )
    _join(proto, parts, predictor.names)
    onnx.save_model(proto, folder / NAME)  # what lies in model.onnx.data stays there, for both
    _check_model(folder / NAME)
    whole = OnnxFile(folder / NAME, threads, extensions=library)
    raws = {n: [raw_of(n, predictor.rows.modalities[n], v, r, m) for v, r, m in rows] for n in parts}
    worst = _compare(whole, parts, predictor, [values for values, _, _ in rows], raws, library, tolerance)
    return {
        "file": NAME,
        "needs": "onnxruntime-extensions: register its library, see README.md",
        "inputs": _inputs(parts, signature),
        "notes": {name: list(part.notes) for name, part in parts.items()},
        "measured": {name: part.measured for name, part in parts.items()},
        "left_out": left_out,
        "max_abs_difference": worst,
        "snippet": snippet(signature, parts, predictor),
    }


def raw_of(name: str, modality: Modality, values: Mapping[str, Any], row: Mapping[str, Any], media: MediaRoot) -> Raw:
    """What the embedded model takes for a cell: a text, or a file's bytes; empty where the package sees none."""
    column = modality.columns[0]
    if isinstance(modality, Text):
        return "" if values[name] is None else unicodedata.normalize("NFC", as_text(row[column], column))
    if values[name] is None:
        return b""
    return read_media(row[column], column, media, max_bytes=modality.config.max_bytes)  # type: ignore[attr-defined]


def feed_of(name: str, raw: Sequence[Raw]) -> dict[str, np.ndarray]:
    """The arrays of one embedded input."""
    if all(isinstance(r, str) for r in raw):
        return {f"{name}.text": np.array(raw, dtype=object)}
    files = [r for r in raw if isinstance(r, bytes)]
    return {
        f"{name}.file": np.frombuffer(b"".join(files), dtype=np.uint8),
        f"{name}.file_size": np.array([len(f) for f in files], dtype=np.int64),
    }


def _join(proto: onnx.ModelProto, parts: Mapping[str, Part], names: Sequence[str]) -> None:
    """Put the parts before the graph. An input whose text or file is empty counts as absent, whatever `present` says."""
    graph = proto.graph
    replaced = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.values.items()}
    join = Nodes("prepare")
    present = "present"
    for name, part in parts.items():
        column = join.const(np.eye(len(names), dtype=bool)[[names.index(name)]], bool)
        given_B1 = join.op("Unsqueeze", part.given_B, join.const([1]))
        present = join.op("And", present, join.op("Or", given_B1, join.op("Not", column)))
    front = [node for part in parts.values() for node in part.nodes.nodes] + join.nodes
    front += [helper.make_node("Identity", [value], [array]) for array, value in replaced.items()]
    for node in graph.node:
        for i, value in enumerate(node.input):
            if value == "present":
                node.input[i] = present
    nodes = [*front, *graph.node]
    inputs = [i for i in graph.input if i.name not in replaced]
    inputs = [i for part in parts.values() for i in part.nodes.inputs] + inputs
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.initializer.extend(c for part in parts.values() for c in part.nodes.constants)
    graph.initializer.extend(join.constants)
    there = {o.domain for o in proto.opset_import}
    proto.opset_import.extend(helper.make_opsetid(d, v) for d, v in domains().items() if d not in there)


def _check_model(path: Path) -> None:
    try:
        onnx.checker.check_model(path)
    except onnx.checker.ValidationError as error:
        raise FuselineError("export_failed", f"{path.name} is not valid ONNX: {error}", "report this") from error


def _compare(
    whole: OnnxFile,
    parts: Mapping[str, Part],
    predictor: Predictor,
    rows: Sequence[Mapping[str, Any]],
    raws: Mapping[str, Sequence[Raw]],
    library: str,
    tolerance: float,
) -> float:
    """The embedded model against the package over its own reading of the cells, pixels apart: these are the parts'."""
    runs = {name: OnnxFile(part.model(), 1, extensions=library).run for name, part in parts.items()}
    worst = 0.0
    start = turn = 0
    while start < len(rows):
        some = slice(start, start + (1, 2, 3, 7)[turn % 4])
        arrays = collated(predictor.rows.modalities, rows[some])
        feed = {k: v for k, v in arrays.items() if k in whole.inputs}
        for name, part in parts.items():
            own = feed_of(name, raws[name][some])
            feed |= own
            if isinstance(predictor.rows.modalities[name], Image):
                got = runs[name](own)
                arrays |= {f"{name}.{key}": got[key] for key in part.values}
        wanted, got = predictor.backend.run(arrays), whole.run(feed)
        worst = max(worst, *(difference(wanted[k], got[k]) for k in wanted))
        start, turn = some.stop, turn + 1
    if not worst <= tolerance:
        raise FuselineError(
            "parity", f"{NAME} answers up to {worst:.2g} away from the package, more than {tolerance:g}", "report this"
        )
    return worst


def _inputs(parts: Mapping[str, Part], signature: Mapping[str, Any]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    words = {
        "text": "the texts as they are; an empty one is absent",
        "file": "the files' bytes, one file after the other",
        "file_size": "bytes of each row's file; 0: absent",
    }
    for name, part in parts.items():
        for info in part.nodes.inputs:
            kind = info.type.tensor_type
            dtype = "string" if kind.elem_type == TensorProto.STRING else str(helper.tensor_dtype_to_np_dtype(kind.elem_type))
            shape = [d.dim_param or d.dim_value for d in kind.shape.dim]
            meaning = words[info.name.removeprefix(f"{name}.")]
            out.append(
                {"name": info.name, "dtype": dtype, "shape": shape, "input": name, "embedded": True, "meaning": meaning}
            )
    return out + [{**e, "embedded": False} for e in signature["inputs"] if e["input"] not in parts]
