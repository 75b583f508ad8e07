"""One input's preparation as nodes: which there are, what they read, and what they give in the place of which array."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from fuseline.lab.export import embed_audio, embed_image
from fuseline.lab.export.embed_text import embed_text
from fuseline.lab.export.embed_trials import Raw
from fuseline.lab.export.nodes import EXTENSIONS, MEDIA, ML, OPSET, Nodes, NotEmbeddedError
from fuseline.modalities import MediaRoot, Modality
from fuseline.modalities.audio import Audio
from fuseline.modalities.graph import Graph
from fuseline.modalities.image import Image
from fuseline.modalities.media import read_media
from fuseline.modalities.text import Text, as_text

DOMAINS = {"": OPSET, ML: 3, EXTENSIONS: 1, MEDIA: 1}
"""operators' domains and their versions"""


@dataclass
class Part:
    nodes: Nodes
    values: dict[str, str]
    """array of the modality -> the graph's value"""
    given_B: str
    """bool: whether a row has something"""
    notes: tuple[str, ...] = ()
    """what its user must know"""
    measured: dict[str, Any] = field(default_factory=dict)

    def model(self) -> bytes:
        """Alone, for trials: outputs named as the arrays, and `given`."""
        named = {**self.values, "given": self.given_B}
        ends = [helper.make_node("Identity", [value], [key]) for key, value in named.items()]
        outputs = [helper.make_empty_tensor_value_info(key) for key in named]
        nodes = [*self.nodes.nodes, *ends]
        graph = helper.make_graph(nodes, "part", self.nodes.inputs, outputs, self.nodes.constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in DOMAINS.items()]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def make_part(name: str, modality: Modality) -> Part:
    """Raises :class:`NotEmbeddedError`."""
    nodes = Nodes(f"prepare/{name}")
    if isinstance(modality, Text):
        ids = embed_text(nodes, modality, nodes.input(f"{name}.text", TensorProto.STRING, ["batch"]))
        said = ("the text must be in Unicode NFC",)
        return Part(nodes, {"ids": ids.ids, "mask": ids.mask}, ids.given_B, said)
    if isinstance(modality, Graph):
        raise NotEmbeddedError("an entity is cheap to look up anywhere: see signature.json")
    if not isinstance(modality, (Image, Audio)):
        if modality.name in ("video", "images", "texts", "document"):
            raise NotEmbeddedError("videos, sets and documents are prepared by the caller: see signature.json")
        raise NotEmbeddedError("numbers, categories and dates are cheap to prepare anywhere: see signature.json")
    bytes_N = nodes.input(f"{name}.file", TensorProto.UINT8, [f"{name}.bytes"])
    sizes_B = nodes.input(f"{name}.file_size", TensorProto.INT64, ["batch"])
    if isinstance(modality, Image):
        pixels = embed_image.embed_image(nodes, modality, bytes_N, sizes_B)
        named = dict(zip(modality.arrays(), pixels.values, strict=True))
        return Part(nodes, named, pixels.given_B, embed_image.notes_of(modality))
    wave = embed_audio.embed_audio(nodes, modality, bytes_N, sizes_B)
    values = dict(zip(("waveform", "length"), wave.values, strict=True))
    return Part(nodes, values, wave.given_B, embed_audio.notes_of(modality))


def raw_of(name: str, modality: Modality, values: Mapping[str, Any], row: Mapping[str, Any], media: MediaRoot) -> Raw:
    """What the embedded model takes for a cell: a text, or a file's bytes; empty where the package sees none."""
    column = modality.columns[0]
    if isinstance(modality, Text):
        return "" if values[name] is None else unicodedata.normalize("NFC", as_text(row[column], column))
    assert isinstance(modality, (Image, Audio))
    return b"" if values[name] is None else read_media(row[column], column, media, max_bytes=modality.config.max_bytes)


def feed_of(name: str, raw: Sequence[Raw]) -> dict[str, np.ndarray]:
    """The arrays of one embedded input, a batch."""
    if all(isinstance(r, str) for r in raw):
        return {f"{name}.text": np.array(raw, dtype=object)}
    files = [r for r in raw if isinstance(r, bytes)]
    return {
        f"{name}.file": np.frombuffer(b"".join(files), dtype=np.uint8),
        f"{name}.file_size": np.array([len(f) for f in files], dtype=np.int64),
    }
