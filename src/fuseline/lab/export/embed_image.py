"""Files of pictures to pixels inside the graph. Dimensions: B batch, H W C a picture.

What is not the same as in :mod:`fuseline.modalities.picture` is listed in `notes_of`; how much it matters is measured
on pictures by the caller.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from fuseline.lab.export.embed_files import Stacked, each_file, ends_with, refused_unless, starts_with
from fuseline.lab.export.nodes import MEDIA, Nodes
from fuseline.modalities.image import Image

_NOTES = (
    "only JPEG (not CMYK) and PNG are read; another file, or a JPEG without its end, is an error of the whole batch",
    "a JPEG that is damaged inside may end the process: decode the files of strangers outside, and use model.onnx",
    "EXIF orientation is not applied: turn such a picture before",
    "transparency is dropped, not laid on white; 16-bit grey keeps its high byte, and is not stretched",
    "a large JPEG is decoded whole, not first at 1/2, 1/4 or 1/8, which takes longer",
)
_CROP = "of a picture whose sides differ by an odd number, the middle lies half a pixel beside the package's"


def notes_of(modality: Image) -> tuple[str, ...]:
    """What the user must know."""
    return (*_NOTES, _CROP) if modality.config.resize == "crop" else _NOTES


def embed_image(nodes: Nodes, modality: Image, bytes_N: str, sizes_B: str) -> Stacked:
    """Add the nodes that turn files into pixels (B, size, size, 3) uint8, black where a file is absent, and where the
    modality hands them over into sides (B, 2) float32, width and height."""
    size = modality.config.size

    def decode(there: Nodes, file_n: str) -> list[str]:
        jpeg = there.op("And", starts_with(there, file_n, b"\xff\xd8\xff"), ends_with(there, file_n, b"\xff\xd9"))
        known = there.op("Or", jpeg, starts_with(there, file_n, b"\x89PNG\r\n\x1a\n"))
        whole = refused_unless(there, known, file_n, "neither a PNG nor a whole JPEG")
        # Without this attribute the operator gives blue first, and writes beyond its memory on a grey JPEG.
        picture_HWC = there.op("DecodeImage", whole, domain=MEDIA, color_space="rgb")
        pixels = _scaled(there, picture_HWC, modality)
        if not modality.config.sides:
            return [pixels]
        sides = there.op("Concat", there.axis(picture_HWC, 1), there.axis(picture_HWC, 0), axis=0)
        return [pixels, there.op("Cast", sides, to=TensorProto.FLOAT)]

    absent: list[np.ndarray] = [np.zeros((size, size, 3), np.uint8)]
    if modality.config.sides:
        absent.append(np.full(2, size, np.float32))
    return each_file(nodes, bytes_N, sizes_B, decode, absent)


def _scaled(nodes: Nodes, picture_HWC: str, modality: Image) -> str:
    """By the modality's rule, bilinear with antialiasing: ONNX Runtime's is Pillow's, to one or two of 255."""
    size, resize = modality.config.size, modality.config.resize
    both = nodes.const([size, size])
    height, width = nodes.axis(picture_HWC, 0), nodes.axis(picture_HWC, 1)
    if resize == "crop":
        side = nodes.op("Min", height, width)
        lengths = nodes.op("Concat", height, width, axis=0)
        start = nodes.op("Div", nodes.op("Sub", lengths, side), nodes.const([2]))
        picture_HWC = nodes.op("Slice", picture_HWC, start, nodes.op("Add", start, side), nodes.const([0, 1]))
    elif resize == "pad":
        lengths = nodes.op("Concat", height, width, axis=0)
        exact = nodes.op(
            "Div",
            nodes.op("Cast", nodes.op("Mul", lengths, nodes.const([size])), to=TensorProto.DOUBLE),
            nodes.op("Cast", nodes.op("Max", height, width), to=TensorProto.DOUBLE),
        )
        both = nodes.op("Max", nodes.op("Cast", nodes.op("Round", exact), to=TensorProto.INT64), nodes.const([1]))
    channels = nodes.axis(picture_HWC, 2)
    scaled = nodes.op(
        "Resize",
        nodes.op("Unsqueeze", picture_HWC, nodes.const([0])),
        "",
        "",
        nodes.op("Concat", nodes.const([1]), both, channels, axis=0),
        mode="linear",
        antialias=1,
        exclude_outside=1,
        coordinate_transformation_mode="half_pixel",
    )
    # A grey JPEG has one channel.
    pixels = nodes.op(
        "Expand", nodes.op("Squeeze", scaled, nodes.const([0])), nodes.op("Concat", both, nodes.const([3]), axis=0)
    )
    if resize != "pad":
        return str(pixels)
    missing = nodes.op("Sub", nodes.const([size, size]), both)
    before = nodes.op("Div", missing, nodes.const([2]))
    none = nodes.const([0])
    pads = nodes.op("Concat", before, none, nodes.op("Sub", missing, before), none, axis=0)
    return str(nodes.op("Pad", pixels, pads, nodes.const(0, np.uint8)))
