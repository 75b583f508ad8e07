"""`fuseline export`: a package as files that another program runs without fuseline."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fuseline.errors import FuselineError, unknown_kind
from fuseline.lab.export.guide import guide
from fuseline.lab.export.onnxfile import write_onnx
from fuseline.lab.export.openvino import config_of, write_openvino
from fuseline.lab.export.parity_shapes import check_lengths
from fuseline.lab.export.runners import OnnxFile, OpenVinoFile
from fuseline.lab.export.samples import made_row
from fuseline.lab.export.signature import example, signature
from fuseline.modalities import MediaRoot
from fuseline.modalities.document import Document
from fuseline.modalities.rows import RowParser
from fuseline.modalities.text import Text
from fuseline.package import Package, read_package
from fuseline.package.files import finite, write_json, write_text
from fuseline.progress import Silent, Voice
from fuseline.runtime import load
from fuseline.runtime.backend import cpu_quota

TARGETS = ("onnx", "openvino")
WRITTEN = (
    "model.onnx",
    "model.onnx.data",
    "model-embedded.onnx",
    "model.xml",
    "model.bin",
    "signature.json",
    "example.json",
    "parity.json",
    "README.md",
    "tokenizers",
    "example",
)
"""all that an export ever writes, and all that --force takes away"""
MADE_ROWS = 24
Cells = list[tuple[Mapping[str, Any], MediaRoot]]
"""raw rows, each with where its files lie"""


@dataclass
class Exported:
    """What was written."""

    folder: Path
    files: dict[str, int]
    """path in the folder -> bytes"""
    parity: dict[str, Any]
    embedded: dict[str, Any] | None = None
    """of model-embedded.onnx: inputs, what was measured, what was left out and why"""
    notes: list[str] = field(default_factory=list)
    """what else is to be said, e.g. of rows that could not be read"""


def export_to(
    model: str | Path,
    to: str,
    out: str | Path,
    *,
    embed: bool = False,
    external_data: bool = False,
    data: Any = None,
    rows: int = 64,
    force: bool = False,
    threads: int | None = None,
    voice: Voice | None = None,
) -> Exported:
    """Write a package as a folder for plain ONNX Runtime or plain OpenVINO, checked against the package itself.

    The folder holds the model, `signature.json` (inputs, outputs, how to make the ones and read the others),
    `example.json` (made rows and the outputs to expect), `parity.json`, the tokenizers and a README whose Python runs.

    Args:
        model: a package NAME.fuse, or a run's folder.
        to: "onnx" or "openvino".
        out: a folder, new or empty.
        embed: also write model-embedded.onnx, which takes texts and files of pictures and sounds where ONNX Runtime
            Extensions can read them as the package does.
        external_data: weights in a file of their own, whatever their size.
        data: a table (path or frame) whose first `rows` rows are compared, too; made rows always are.
        rows: of `data`.
        force: overwrite an earlier export in `out`; other files there are left alone.
        threads: that work on one batch; None: all that the process may use.
        voice: told of the progress.

    Raises:
        FuselineError: ``unknown_kind``, ``bad_usage``, ``missing_extra``, ``cannot_export``, ``export_failed``,
            ``file_exists``, ``parity`` where the exported model answers otherwise, and what opening the package or
            the table raises. Then nothing was written.
    """
    out, voice = Path(out), voice or Silent()
    _check(to, out, embed=embed, external_data=external_data, force=force)
    package = read_package(model)
    if package.writes:
        raise FuselineError(
            "cannot_export",
            f"{package.name} writes texts: it is two graphs and a loop, which no one model file holds",
            "its graph.onnx and step.onnx are plain ONNX, and docs/generation.md says what goes between them",
        )
    if to == "onnx" and "onnxruntime" not in package.backends:
        raise FuselineError(
            "cannot_export",
            f"{package.name} holds an OpenVINO graph only, and no tool turns that into ONNX",
            "export it --to openvino; or export the package that it was compressed from, or compress that with "
            "--backend onnxruntime",
        )
    table = None if data is None else _first_rows(package, data, rows)
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{out.absolute().name}-", dir=parent))
    new.chmod(0o755)
    try:
        exported = _write(package, to, new, embed, external_data, table, threads or cpu_quota(), voice)
        _put(new, out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    exported.folder = out
    return exported


def _first_rows(package: Package, data: Any, most: int) -> Cells:
    """Raises FuselineError ``no_such_file``, ``bad_table``, ``missing_column`` ..."""
    from fuseline.data.table import Table
    from fuseline.data.windows import open_table

    recipe = package.recipe
    columns = list(dict.fromkeys(c for name in recipe.inputs for c in recipe.columns_of(name)))
    table = open_table(data, recipe.table)
    table.require(columns)
    media = MediaRoot(recipe.table.media_root or (None if table.folder is None else str(table.folder)))
    first = np.arange(min(most, table.n_rows))
    return [(row, media) for row in Table.rows(table.take(first, columns))]


def _check(to: str, out: Path, *, embed: bool, external_data: bool, force: bool) -> None:
    """All that can be refused before any work."""
    if to not in TARGETS:
        raise unknown_kind("export target", to, TARGETS)
    if to == "openvino" and (embed or external_data):
        raise FuselineError("bad_usage", "this option belongs to --to onnx", "leave it out, or export --to onnx")
    needed = {"onnx": "onnx", "openvino": "openvino"}[to]
    for module, wanted in ((needed, True), ("onnxruntime_extensions", embed)):
        if wanted and importlib.util.find_spec(module) is None:
            hint = "pip install 'fuseline[compress]'"
            raise FuselineError("missing_extra", f"this export needs {module}", hint)
    if out.suffix == ".onnx":
        raise FuselineError(
            "bad_usage", f"{out} is to be a folder", f"give -o {out.stem}; the model.onnx in it needs no other file"
        )
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not force):
        what = "is a file" if out.is_file() else "is not empty"
        hint = "give another folder" + ("" if out.is_file() else ", or --force to replace an earlier export in it")
        raise FuselineError("file_exists", f"{out} {what}", hint)


def _write(
    package: Package,
    to: str,
    folder: Path,
    embed: bool,
    external_data: bool,
    table: Cells | None,
    threads: int,
    voice: Voice,
) -> Exported:
    if to == "onnx":
        voice.say("writing model.onnx")
        write_onnx(package, folder, external_data=external_data)
        kind, config = "onnxruntime", {}
        opened: OnnxFile | OpenVinoFile = OnnxFile(folder / "model.onnx", threads)
    else:
        voice.say("writing model.xml and model.bin")
        kind, config = write_openvino(package, folder), config_of(package)
        opened = OpenVinoFile(folder / "model.xml", threads, config)
    predictor = load(package.folder, backend=kind, threads=threads)
    rng = np.random.default_rng(1)
    made: Cells = [(made_row(predictor.rows, rng), MediaRoot(None)) for _ in range(MADE_ROWS)]
    cells = [*made, *(table or ())]
    rows = [predictor.rows.parse(row, media) for row, media in cells]
    parsed = [row.values for row in rows if row.error is None]
    errors = [row.error for row in rows if row.error is not None]
    notes = [f"{len(errors)} rows of the table cannot be read, e.g. {errors[0].message}"] if errors else []
    tolerance = package.recipe.evaluation.tolerance
    parity = check_lengths(
        predictor.backend.run, opened.run, predictor.rows.modalities, tolerance=tolerance, rows=parsed, voice=voice
    )
    said = signature(package, predictor, opened, _tokenizers(predictor.rows, folder))
    said["runtime"] = {
        "target": to,
        "file": "model.onnx" if to == "onnx" else "model.xml",
        "config": config,
        "precision": sorted(package.precisions(kind)),
    }
    write_json(folder / "example.json", example(predictor, opened, folder))
    embedded = None
    if embed:
        from fuseline.lab.export.embed import write_embedded

        embedded = write_embedded(
            folder, said, predictor, cells, made=MADE_ROWS, threads=threads, tolerance=tolerance, voice=voice
        )
        said["embedded"] = embedded
    write_json(folder / "signature.json", finite(said))
    write_json(folder / "parity.json", finite(parity))
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    write_text(folder / "README.md", guide(said, to, parity, files))
    sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    return Exported(folder, sizes, parity, embedded, notes)


def _tokenizers(parser: RowParser, folder: Path) -> dict[str, str]:
    """Write every text's tokenizer; input -> file."""
    files: dict[str, str] = {}
    for i, (name, modality) in enumerate(parser.modalities.items()):
        text = getattr(modality, "item", modality)  # one of several texts is read as a text is
        if isinstance(text, (Text, Document)):
            (folder / "tokenizers").mkdir(exist_ok=True)
            plain = re.fullmatch(r"[\w -]{1,80}", name, re.ASCII) is not None
            files[name] = f"tokenizers/{name if plain else f'input-{i}'}.json"
            write_text(folder / files[name], text.tokenizer.to_str(pretty=True))
    return files


def _put(new: Path, out: Path) -> None:
    """Move what was written to its place: an earlier export there goes, anything else stays."""
    if not out.exists():
        os.replace(new, out)
        return
    for name in WRITTEN:
        old = out / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for path in new.iterdir():
        os.replace(path, out / path.name)


def said_sizes(files: Mapping[str, int], shown: Sequence[str] = WRITTEN) -> list[str]:
    """Lines for a person: each file with its size."""
    lines = []
    for name in shown:
        size = sum(n for f, n in files.items() if f == name or f.startswith(name + "/"))
        if size:
            lines.append(f"{name}: {size / 1e6:.1f} MB" if size >= 1e5 else f"{name}: {size / 1e3:.1f} kB")
    return lines
