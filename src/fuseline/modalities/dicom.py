"""One DICOM picture to uint8, through pydicom (the `dicom` extra)."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.modalities.cells import bad_cell, shorten
from fuseline.modalities.picture import to_bytes

_DEFLATED = b"1.2.840.10008.1.2.1.99"


def decode_dicom(data: bytes, cell: Any, column: str, max_pixels: int) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 of the first frame.

    Grey pictures pass the modality and VOI tables (windowing, as a viewer shows them), MONOCHROME1 is inverted so that
    dense tissue is bright, and the result is scaled by the rule of `picture.py`. Colour is brought to RGB.

    Raises FuselineError ``missing_extra`` without pydicom, ``bad_cell`` for a file that holds no readable picture.
    """
    try:
        import pydicom
    except ImportError:
        raise FuselineError(
            "missing_extra", f"{shorten(cell)} is DICOM", "pip install 'fuseline[dicom]'", column=column
        ) from None
    if _DEFLATED in data:  # would inflate without a limit; where it stands in the file is the sender's choice
        raise bad_cell(
            column, f"{shorten(cell)} is DICOM in the deflated syntax, which is not read", "store it plainly"
        )
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # pydicom remarks on odd values
        try:
            dataset = pydicom.dcmread(io.BytesIO(data))
            if "PixelData" not in dataset:
                raise bad_cell(column, f"{shorten(cell)} is DICOM without a picture")
            width, height = int(dataset.Columns), int(dataset.Rows)
            if width * height > max_pixels:
                raise bad_cell(column, f"{shorten(cell)} is {width} x {height} pixels, more than {max_pixels:,}")
            return _pixels(dataset)
        except FuselineError:
            raise
        except Exception as error:  # as in `picture.py`: hostile bytes raise nearly every kind
            reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            missing = "decompress" in reason or "plugin" in reason
            hint = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg" if missing else "the file is damaged"
            raise bad_cell(column, f"cannot read the DICOM picture {shorten(cell)}: {reason}", hint) from None


def _pixels(dataset: Any) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

    pixels = pixel_array(dataset, index=0)
    kind = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    if pixels.ndim == 3:
        high = pixels.dtype.itemsize * 8 - 8
        return np.ascontiguousarray((pixels[..., :3] >> high).astype(np.uint8))
    grey = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
    out = to_bytes(np.asarray(grey))
    return 255 - out if kind == "MONOCHROME1" else out
