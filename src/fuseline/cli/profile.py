"""`fuseline profile`: where a package's time goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from fuseline.errors import FuselineError

NAME = "profile"


def command(
    model: Annotated[Path, typer.Argument(help="a package NAME.fuse, or a run's folder")],
    data: Annotated[Path | None, typer.Option("--data", help="a table with rows to time; else rows are made")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="rows read of the table")] = 64,
    batch: Annotated[str, typer.Option("--batch", help="rows of a batch, several with commas")] = "1,8",
    backend: Annotated[
        str | None, typer.Option("--backend", help="onnxruntime or openvino; default: the package's own")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="of one batch; default: all")] = None,
    top: Annotated[int, typer.Option("--top", min=0, max=10, help="modules and operations listed")] = 10,
    json: Annotated[Path | None, typer.Option("--json", help="also write all figures there")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Tell where the time goes: decoding, each encoder, fusion and head, and how far that is from the machine's peak.

    The peak is measured, too: large products of matrices, by the same runtime, in the number formats that it has. Needs
    no torch.
    """
    from fuseline.package.files import finite, write_json
    from fuseline.progress import voice
    from fuseline.runtime.profile import profile_package

    found = profile_package(
        model,
        data,
        rows=rows,
        batches=_sizes(batch),
        backend=backend,
        threads=threads,
        voice=voice("quiet" if quiet else "auto"),
    )
    if json is not None:
        write_json(json, finite(found))
    show(found, top)


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(word) for word in text.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise FuselineError("bad_usage", f"--batch {text} is no list of batch sizes", "e.g. --batch 1,8")
    return sizes


def show(found: dict[str, Any], top: int = 10, console: Console | None = None) -> None:
    """A table for each size of batch; the slowest modules and operations of the last."""
    console = console or Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"{found['model']} {found['version']}: {found['backend']}, {found['precision']}, {found['threads']} threads")
    say(f"opened in {found['load_seconds']:.2f} s; {found['rows']} rows: {found['source']}")
    if found["peak"]:
        peaks = ", ".join(f"{name} {value:.0f} GFLOP/s" for name, value in found["peak"].items())
        say(f"measured peak of products of matrices: {peaks}")
    for note in found["notes"]:
        say(f"note: {note}")
    for size in found["batches"]:
        console.print(_stages(size))
    last = found["batches"][-1]
    for part in last["parts"]:
        if part["modules"] and top:
            console.print(_slowest(f"{part['name']}: slowest modules", part["modules"][:top]))
    if top:
        console.print(_slowest("slowest operations", last["ops"][:top]))


def _grid(title: str, first: str) -> Grid:
    grid = Grid(title=escape(title), title_justify="left")
    grid.add_column(first, overflow="fold")
    for name in ("ms", "share", "GFLOP", "GFLOP/s", "of peak"):
        grid.add_column(name, justify="right")
    return grid


def _stages(size: dict[str, Any]) -> Grid:
    per_second = size["rows"] / size["seconds"]
    grid = _grid(f"batches of {size['rows']}: {1e3 * size['seconds']:.3g} ms, {per_second:.3g} rows a second", "where")
    for stage, said in (("decode", "decode cells"), ("collate", "collate")):
        seconds = size["stages"][stage]
        grid.add_row(said, *_time(seconds, size["seconds"]))
        if seconds is not None:
            for name, value in size[stage].items():
                grid.add_row(f"  {escape(name)}", *_time(value, size["seconds"]))
    grid.add_row("graph", *_figures(size["graph"]))
    for part in size["parts"]:
        grid.add_row(f"  {escape(part['name'])}", *_figures(part))
    grid.add_row("answers", *_time(size["stages"]["answers"], size["seconds"]))
    return grid


def _slowest(title: str, entries: list[dict[str, Any]]) -> Grid:
    grid = _grid(title, "what")
    for entry in entries:
        grid.add_row(escape(entry["name"]), *_figures(entry))
    return grid


def _time(seconds: float | None, total: float) -> tuple[str, ...]:
    if seconds is None:
        return ("not measured", "", "", "", "")
    return (f"{1e3 * seconds:.3f}", f"{seconds / total:.1%}", "", "", "")


def _figures(entry: dict[str, Any]) -> tuple[str, ...]:
    least = "≥ " if entry.get("unknown") else ""
    work = entry.get("gflop") or None
    if work is None and least:
        work, least = None, "unknown"
    speed, peak = (entry.get(key) if work else None for key in ("gflop_per_second", "peak_share"))
    return (
        f"{1e3 * entry['seconds']:.3f}",
        f"{entry['share']:.1%}",
        f"{least}{work:.3g}" if work else least.strip(),
        f"{least}{speed:.3g}" if speed else "",
        f"{least}{peak:.0%}" if peak is not None else "",
    )
