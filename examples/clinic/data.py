"""The clinic's table and pictures: a real one where a folder has it, else a made one, of diseases that do not exist.

table.csv   a row a visit: image (JPEG, PNG or DICOM), notes, vitals, age, sex, patient, boxes (JSON, two lungs), and
            what is to be told: the finding and whether intensive care came (`went_icu`)
truth.csv   of a made clinic alone: what a perfect judge says, and where a cloud was drawn
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from fuseline.demo import media
from fuseline.demo import statement as st
from fuseline.demo.generator import draw_visit
from fuseline.errors import FuselineError

TABLE, TRUTH = "table.csv", "truth.csv"
FINDINGS = ("covid", "finding")
"""columns that can be the finding, the first that a table has"""
SEVERITY = ("went_icu", "survival", "intubated")
"""columns that can be the severity: of those that a table has, the one that most rows have"""
FEWEST = 8
"""rows of each of two values that a severity column needs"""
SCALE = 4
"""drawings are enlarged by it"""
SIDE = media.SIZE * SCALE
"""of a made picture, in pixels"""
LUNGS = ("Right Lung", "Left Lung")
"""as a radiologist names them: the patient's right is on the picture's left"""
HEADER = (
    "image",
    "notes",
    "age",
    "sex",
    "temperature",
    "po2_saturation",
    "breaths",
    "cough",
    "allergy",
    "patient",
    "boxes",
    "finding",
    "went_icu",
)
KNOWN_ICU = 0.6
"""chance that it was written down whether intensive care came"""


def bring(folder: Path, data: Path | None, *, visits: int = 900, seed: int = 0) -> dict[str, Any]:
    """Put the table and its pictures into `folder`: copied from `data`, or made. `what` in words, and which columns
    tell the `finding` and the `severity`.

    Raises FuselineError ``no_such_file``, ``bad_cell``, ``no_target``.
    """
    if data is None:
        make(folder, visits=visits, seed=seed)
        what = f"a made clinic of {visits} visits; its diseases do not exist"
    else:
        _copy(data, folder)
        what = f"the table of {data}"
    table = pl.read_csv(folder / TABLE, infer_schema_length=None)
    return {"what": what, "rows": len(table), **targets_of(table)}


def targets_of(table: pl.DataFrame) -> dict[str, str]:
    """Which columns are told."""
    finding = next((c for c in FINDINGS if c in table.columns), None)
    if finding is None:
        raise FuselineError("no_target", f"the table has none of {', '.join(FINDINGS)}", "")
    known = {c: len(table) - table[c].null_count() for c in SEVERITY if c in table.columns and _both(table[c])}
    if not known:
        raise FuselineError("no_target", f"none of {', '.join(SEVERITY)} has {FEWEST} rows of two values", "")
    return {"finding": finding, "severity": max(known, key=known.__getitem__)}


def _both(column: pl.Series) -> bool:
    counts = column.drop_nulls().value_counts()["count"]
    return len(counts) == 2 and int(counts.min()) >= FEWEST  # type: ignore[arg-type]


def _copy(data: Path, folder: Path) -> None:
    """The table, and the pictures that it names: nothing from outside `data`."""
    if not (data / TABLE).is_file():
        raise FuselineError("no_such_file", f"{data} holds no {TABLE}", "without --data, a clinic is made")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(data / TABLE, folder / TABLE)
    root = data.resolve()
    for name in pl.read_csv(folder / TABLE, columns=["image"])["image"].drop_nulls():
        source = (data / name).resolve()
        if not source.is_relative_to(root):
            raise FuselineError("unsafe_path", f"the picture {name!r} lies outside of {data}", "", column="image")
        if not source.is_file():
            raise FuselineError("bad_cell", f"there is no picture {name!r}", "", column="image")
        target = folder / source.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def make(folder: Path, *, visits: int, seed: int = 0) -> None:
    """Visits by the law of `fuseline demo` (its picture, note and vitals; :mod:`fuseline.demo.statement`), a third of
    each absent. Whether intensive care came follows from age, oxygen and a cloud on the picture, by
    :func:`icu_chance`. Every eighth visit's picture is a DICOM file of 12 bits."""
    if visits < 10:
        raise FuselineError("bad_argument", f"a clinic of {visits} visits teaches nothing", "take 200 or more")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    patient, again, y, body = -1, False, 0, (1.0, 1.0)
    truth: list[dict[str, Any]] = []
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, HEADER, restval="")
        out.writeheader()
        for row in range(visits):
            rng = np.random.default_rng([seed, 3, row])
            if not again:  # a new patient, whose body and disease a second visit shares
                patient += 1
                y = int(rng.choice(len(st.CLASSES), p=st.PRIOR))
                body = (float(rng.uniform(0.85, 1.1)), float(rng.uniform(0.85, 1.1)))
                sex = "F" if rng.random() < 0.5 else "M"
                again = bool(rng.random() < st.SECOND_VISIT)
            else:
                again = False
            visit = draw_visit(y, rng)
            cells = {"patient": f"P{patient:04d}", "sex": sex, "finding": st.CLASSES[y], **visit.vitals}
            cells["po2_saturation"] = cells.pop("oxygen", "")
            cloud = None
            if "picture" in visit.signs:
                drawn = media.drawing(visit.signs["picture"], body, rng)
                cells["image"] = _written(folder, row, drawn.image)
                cells["boxes"] = json.dumps(_boxes(drawn))
                cloud = drawn.cloud
            if "note" in visit.signs:
                cells["notes"] = media.note(visit.signs["note"], rng)
            chance = icu_chance(cells.get("age"), cells["po2_saturation"], cloud=cloud is not None)
            came, known = rng.random() < chance, rng.random() < KNOWN_ICU
            cells["went_icu"] = ("Y" if came else "N") if known else ""
            out.writerow(cells)
            read = ("picture", "note", "vitals")
            log_C = np.log(st.PRIOR) + sum((visit.evidence[m] for m in read if m in visit.evidence), np.zeros(3))
            where = None if cloud is None else json.dumps([round(SCALE * v, 1) for v in cloud])
            truth.append({"judge": st.CLASSES[int(log_C.argmax())], "icu_chance": round(chance, 4), "cloud": where})
    pl.DataFrame(truth, infer_schema_length=None).write_csv(folder / TRUTH)


def icu_chance(age: str | None, oxygen: str, *, cloud: bool) -> float:
    """1 / (1 + exp(1.5 - (age - 55) / 15 - (96 - oxygen) / 1.5 - 1.2·cloud)); of what is not known, its middle."""
    odds = -1.5 + (float(age or 55) - 55) / 15 + (96 - float(oxygen or 96)) / 1.5 + 1.2 * cloud
    return float(1 / (1 + np.exp(-odds)))


def _boxes(drawn: media.Drawing) -> list[dict[str, Any]]:
    return [
        {"label": name, "xyxy": [round(float(np.clip(SCALE * v, 0, SIDE)), 1) for v in box]}
        for name, box in zip(LUNGS, drawn.lungs, strict=True)
    ]


def _written(folder: Path, row: int, image: Image.Image) -> str:
    large = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if row % 8 == 5:
        name = f"images/{row:05d}.dcm"
        (folder / name).write_bytes(dicom(np.asarray(large), row))
    else:
        name = f"images/{row:05d}.png"
        large.save(folder / name)
    return name


def dicom(grey_HW: np.ndarray, number: int) -> bytes:
    """A picture of 8 bits as a secondary capture of 12 bits, without a person's name. Raises FuselineError
    ``missing_extra``."""
    try:
        import pydicom
    except ImportError:
        raise FuselineError("missing_extra", "a made clinic has DICOM", "pip install 'fuseline[dicom]'") from None
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["fuseline made clinic", str(number)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientName, data.PatientID = "CR", "", f"MADE-{number}"
    data.Rows, data.Columns = grey_HW.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.WindowCenter, data.WindowWidth = 2048, 4096
    data.PixelData = (grey_HW.astype(np.uint16) * 16).tobytes()
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()
