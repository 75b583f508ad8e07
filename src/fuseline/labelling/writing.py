"""Tables written whole or not at all, in the format that their name says."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from fuseline.errors import FuselineError

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")


def check_target(path: Path, *, force: bool) -> None:
    """Raises FuselineError ``bad_output``, ``file_exists``, ``cannot_write``. Writes nothing."""
    if path.suffix.lower() not in ENDINGS:
        raise FuselineError("bad_output", f"cannot write {path.name}", f"the name ends in {', '.join(ENDINGS)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise FuselineError("cannot_write", f"cannot write {path}: {reason}", "choose another name")
    if path.exists() and not force:
        raise FuselineError("file_exists", f"{path} exists", "choose another name, or overwrite it with --force")


def write_table(path: Path, frames: Iterable[pl.DataFrame]) -> int:
    """Frames of one schema under one header; returns the number of rows. Text formats stream, Parquet is held whole.

    Raises FuselineError ``bad_output`` where a cell cannot be text (bytes, lists).
    """
    kind, new, rows = path.suffix.lower(), path.with_name(path.name + ".new"), 0
    head = True
    try:
        if kind == ".parquet":
            whole = pl.concat(list(frames), how="vertical_relaxed")
            whole.write_parquet(new)
            rows = whole.height
        else:
            with new.open("wb") as file:
                for frame in frames:
                    if kind == ".jsonl":
                        _texts_only(frame, path, nested=True)
                        frame.write_ndjson(file)
                    else:
                        _texts_only(frame, path, nested=False)
                        frame = frame.with_columns(
                            pl.col(pl.String).replace("", None)
                        )  # the same in a CSV, less quotes
                        frame.write_csv(file, include_header=head, separator="\t" if kind == ".tsv" else ",")
                        head = False
                    rows += frame.height
        os.replace(new, path)
    except OSError as error:
        raise FuselineError("cannot_write", f"cannot write {path}: {error.strerror}", "choose another place") from None
    finally:
        new.unlink(missing_ok=True)
    return rows


def _texts_only(frame: pl.DataFrame, path: Path, *, nested: bool) -> None:
    for name, kind in frame.schema.items():
        binary = kind == pl.Binary or (isinstance(kind, pl.Struct) and any(f.dtype == pl.Binary for f in kind.fields))
        if binary or (kind.is_nested() and not nested):
            what = "bytes" if binary else "lists"
            raise FuselineError(
                "bad_output",
                f"column {name!r} holds {what}, which {path.suffix} cannot",
                "write a .parquet",
                column=name,
            )
