"""One file a modality. This is the table of them."""

from __future__ import annotations

from fuseline.errors import unknown_kind
from fuseline.modalities.base import ArraySpec, Cells, MediaRoot, Modality

MODALITIES = (
    "text",
    "image",
    "audio",
    "tabular",
    "timeseries",
    "graph",
    "video",
    "images",
    "texts",
    "document",
)

__all__ = ["MODALITIES", "ArraySpec", "Cells", "MediaRoot", "Modality", "modality_class"]


def modality_class(name: str) -> type[Modality]:
    """The class behind a modality's name."""
    match name:
        case "text":
            from fuseline.modalities.text import Text

            return Text
        case "image":
            from fuseline.modalities.image import Image

            return Image
        case "audio":
            from fuseline.modalities.audio import Audio

            return Audio
        case "tabular":
            from fuseline.modalities.tabular import Tabular

            return Tabular
        case "graph":
            from fuseline.modalities.graph import Graph

            return Graph
        case "video":
            from fuseline.modalities.video import Video

            return Video
        case "images":
            from fuseline.modalities.several import Images

            return Images
        case "texts":
            from fuseline.modalities.several import Texts

            return Texts
        case "timeseries":
            from fuseline.modalities.timeseries import TimeSeries

            return TimeSeries
        case "document":
            from fuseline.modalities.document import Document

            return Document
        case _:
            raise unknown_kind("modality", name, MODALITIES)
