"""`fuseline drift`: do the served rows still look like those that the model was made from?"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

NAME = "drift"
FOUND = 3
"""exit status where drift was found"""


def command(
    model: Annotated[Path, typer.Argument(help="a package NAME.fuse, or a run's folder")],
    log: Annotated[Path, typer.Argument(help="the folder that the server records to")],
    since: Annotated[
        str | None, typer.Option(help="only rows from then on: 2026-01-31, 2026-01-31T08:00 (UTC), or 7d, 12h, 30m")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="later labels: a table with request, row, label")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="also write a report, an HTML file")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", help="a feature or input that may drift, e.g. a date")
    ] = None,
    alpha: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="chance of any false alarm over all features together")
    ] = 0.001,
    shadow: Annotated[bool, typer.Option("--shadow", help="also rows that were only mirrored to this version")] = False,
) -> None:
    """Compare a server's log with a package's profile: inputs, absent shares, answers, embedding. Needs no torch.

    Ends with status 0 where nothing drifted, 3 where something did.
    """
    from rich.console import Console

    from fuseline.cli.show_drift import show_drift
    from fuseline.monitor.compare import compare
    from fuseline.monitor.recorded import expected_accuracy, live, read_labels, read_log
    from fuseline.monitor.report import Subject, write_report
    from fuseline.monitor.window import Window
    from fuseline.package import read_package

    package = read_package(model)
    profile = package.read_json("profile.json") or {}
    start = None if since is None else moment(since, datetime.datetime.now(datetime.UTC))
    read = read_log(log, version=package.version, since=start, doors=shadow)
    window = Window.of(read.frame, profile)
    result = compare(profile, window, alpha=alpha, ignore=ignore or ())
    subject = Subject(
        package.name,
        package.version,
        read.notes,
        None if labels is None else live(read.frame, read_labels(labels)),
        expected_accuracy(package.read_json("metrics.json")),
    )
    console = Console(highlight=False)
    show_drift(subject, result, console)
    if out is not None:
        write_report(out, subject, profile, window, result)
        console.print(f"report: {out}", markup=False, soft_wrap=True)
    if result.alarm:
        raise typer.Exit(FOUND)


def moment(text: str, now: datetime.datetime) -> datetime.datetime:
    """ISO 8601 (UTC where it names no zone), or how long ago. Raises FuselineError ``bad_argument``."""
    from fuseline.errors import FuselineError

    units = {"m": "minutes", "h": "hours", "d": "days"}
    try:
        if text[-1:] in units:
            return now - datetime.timedelta(**{units[text[-1]]: float(text[:-1])})
        found = datetime.datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise FuselineError("bad_argument", f"--since {text!r} is no time", "2026-01-31, or 7d, 12h, 30m") from None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
