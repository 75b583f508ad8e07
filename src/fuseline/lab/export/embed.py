"""model-embedded.onnx: the model with tokenising and decoding inside, as far as that gives the same. B batch.

ONNX Runtime Extensions have the operators. Each input is tried alone against the package's own reading before it goes
in: ids and samples must be equal, pixels may differ as long as the answers hardly do. What is left out is said, with
the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from fuseline.errors import FuselineError
from fuseline.lab.export.embed_parts import DOMAINS, Part, feed_of, make_part, raw_of
from fuseline.lab.export.embed_trials import Raw, try_files, try_texts
from fuseline.lab.export.nodes import OPSET, Nodes, NotEmbeddedError
from fuseline.lab.export.onnxfile import check
from fuseline.lab.export.parity import difference
from fuseline.lab.export.parity_shapes import collated
from fuseline.lab.export.runners import OnnxFile
from fuseline.modalities import MediaRoot
from fuseline.modalities.audio import Audio
from fuseline.modalities.image import Image
from fuseline.modalities.text import Text
from fuseline.progress import Voice
from fuseline.runtime import Predictor

NAME = "model-embedded.onnx"


class Row:
    """One row, parsed by the package, and what the embedded model takes for its inputs."""

    def __init__(self, values: Mapping[str, Any], cells: Mapping[str, Any], media: MediaRoot) -> None:
        self.values, self._cells, self._media = values, cells, media

    def raw(self, name: str, predictor: Predictor) -> Raw:
        return raw_of(name, predictor.rows.modalities[name], self.values, self._cells, self._media)


def write_embedded(
    folder: Path,
    signature: Mapping[str, Any],
    predictor: Predictor,
    cells: Sequence[tuple[Mapping[str, Any], MediaRoot]],
    *,
    made: int,
    threads: int,
    tolerance: float,
    voice: Voice,
) -> dict[str, Any]:
    """Write model-embedded.onnx beside model.onnx; what is to stand in signature.json of it.

    Args:
        folder: holds model.onnx.
        signature: of that.
        predictor: the package, opened with onnxruntime.
        cells: raw rows, with where their files lie.
        made: how many of them, the first ones, are made by code.
        threads: of a session.
        tolerance: of outputs, pixels apart.
        voice: told of the progress.

    Raises:
        FuselineError: ``cannot_export`` where nothing can go in, ``parity`` where the whole gives other answers than
            its parts.
    """
    from onnxruntime_extensions import get_library_path

    library = get_library_path()
    proto = onnx.load_model(folder / "model.onnx", load_external_data=False)
    parsed = [(predictor.rows.parse(row, media), row, media) for row, media in cells]
    rows = [Row(p.values, row, media) for p, row, media in parsed[:made] if p.error is None]
    rows_made = len(rows)
    rows += [Row(p.values, row, media) for p, row, media in parsed[made:] if p.error is None]
    parts: dict[str, Part] = {}
    left_out: dict[str, str] = {}
    for name in predictor.names:
        voice.say(f"embedding {name}")
        try:
            if _opset(proto) < OPSET:
                raise NotEmbeddedError(f"the graph has opset {_opset(proto)}, and {OPSET} is needed")
            parts[name] = _tried(name, predictor, rows, rows_made, library, threads)
        except NotEmbeddedError as why:
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
    check(folder / NAME)
    worst = _compare(OnnxFile(folder / NAME, threads, extensions=library), parts, predictor, rows, library, tolerance)
    return {
        "file": NAME,
        "needs": "onnxruntime-extensions: register its library, see README.md",
        "inputs": _inputs(parts, signature),
        "notes": {name: list(part.notes) for name, part in parts.items()},
        "measured": {name: part.measured for name, part in parts.items()},
        "left_out": left_out,
        "max_abs_difference": worst,
    }


def _opset(proto: onnx.ModelProto) -> int:
    return max((o.version for o in proto.opset_import if o.domain == ""), default=0)


def _tried(name: str, predictor: Predictor, rows: Sequence[Row], made: int, library: str, threads: int) -> Part:
    """One input's part, after its trial. Raises :class:`NotEmbeddedError`."""
    modality = predictor.rows.modalities[name]
    part = make_part(name, modality)
    run = OnnxFile(part.model(), threads, extensions=library).run
    raw = [row.raw(name, predictor) for row in rows]
    if isinstance(modality, Text):
        part.measured = try_texts(run, name, modality, raw)
    else:
        assert isinstance(modality, (Image, Audio))
        files = [(i, r, rows[i].values) for i, r in enumerate(raw) if isinstance(r, bytes) and r]
        ours = [(r, values) for i, r, values in files if i < made]
        theirs = [(r, values) for i, r, values in files if i >= made]
        part.measured = try_files(run, name, modality, ours, theirs, predictor)
    return part


def _join(proto: onnx.ModelProto, parts: Mapping[str, Part], names: Sequence[str]) -> None:
    """Put the parts before the graph. An input whose text or file is empty is absent, whatever `present` says."""
    graph = proto.graph
    replaced = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.values.items()}
    join = Nodes("prepare")
    present = "present"
    for name, part in parts.items():
        own_1M = join.const(np.eye(len(names), dtype=bool)[[names.index(name)]], bool)
        given_B1 = join.op("Unsqueeze", part.given_B, join.const([1]))
        present = join.op("And", present, join.op("Or", given_B1, join.op("Not", own_1M)))
    front = [node for part in parts.values() for node in part.nodes.nodes] + join.nodes
    front += [helper.make_node("Identity", [value], [array]) for array, value in replaced.items()]
    for node in graph.node:
        for i, value in enumerate(node.input):
            if value == "present":
                node.input[i] = present
    nodes = [*front, *graph.node]
    inputs = [i for part in parts.values() for i in part.nodes.inputs]
    inputs += [i for i in graph.input if i.name not in replaced]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    graph.initializer.extend(c for part in parts.values() for c in part.nodes.constants)
    graph.initializer.extend(join.constants)
    there = {o.domain for o in proto.opset_import}
    proto.opset_import.extend(helper.make_opsetid(d, v) for d, v in DOMAINS.items() if d not in there)


def _compare(
    whole: OnnxFile,
    parts: Mapping[str, Part],
    predictor: Predictor,
    rows: Sequence[Row],
    library: str,
    tolerance: float,
) -> float:
    """The whole against the package over its own reading of the cells, pixels apart: these are the part's."""
    pictures = {
        name: OnnxFile(part.model(), 1, extensions=library).run
        for name, part in parts.items()
        if isinstance(predictor.rows.modalities[name], Image)
    }
    worst, start, turn = 0.0, 0, 0
    while start < len(rows):
        some = rows[start : start + (1, 2, 3, 7)[turn % 4]]
        arrays = collated(predictor.rows.modalities, [row.values for row in some])
        feed = {k: v for k, v in arrays.items() if k in whole.inputs}
        for name in parts:
            own = feed_of(name, [row.raw(name, predictor) for row in some])
            feed |= own
            if name in pictures:
                arrays[f"{name}.pixels"] = pictures[name](own)["pixels"]
        wanted, got = predictor.backend.run(arrays), whole.run(feed)
        worst = max(worst, *(difference(wanted[k], got[k]) for k in wanted))
        start, turn = start + len(some), turn + 1
    if not worst <= tolerance:
        message = f"{NAME} answers up to {worst:.2g} away from the package, more than {tolerance:g}"
        raise FuselineError("parity", message, "report this")
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
            text = kind.elem_type == TensorProto.STRING
            out.append(
                {
                    "name": info.name,
                    "dtype": "string" if text else str(helper.tensor_dtype_to_np_dtype(kind.elem_type)),
                    "shape": [d.dim_param or d.dim_value for d in kind.shape.dim],
                    "input": name,
                    "meaning": words[info.name.removeprefix(f"{name}.")],
                    "embedded": True,
                }
            )
    return out + [{**e, "embedded": False} for e in signature["inputs"] if e["input"] not in parts]
