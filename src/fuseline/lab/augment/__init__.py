"""Random changes of inputs while training: one file a modality. This is the table of them."""

from __future__ import annotations

from fuseline.lab.augment.base import Augment

AUGMENTED = ("image", "images", "video", "audio", "text", "texts", "tabular", "timeseries", "document")


def augment_class(modality: str) -> type[Augment] | None:
    """What changes cells of a modality; None where nothing is known that leaves the truth as it is (entities)."""
    match modality:
        case "image" | "images":
            from fuseline.lab.augment.picture import AugmentPicture

            return AugmentPicture
        case "video":
            from fuseline.lab.augment.picture import AugmentClip

            return AugmentClip
        case "audio":
            from fuseline.lab.augment.sound import AugmentSound

            return AugmentSound
        case "text" | "texts":
            from fuseline.lab.augment.words import AugmentText

            return AugmentText
        case "document":
            from fuseline.lab.augment.words import AugmentDocument

            return AugmentDocument
        case "tabular":
            from fuseline.lab.augment.numbers import AugmentTable

            return AugmentTable
        case "timeseries":
            from fuseline.lab.augment.numbers import AugmentSeries

            return AugmentSeries
        case _:
            return None
