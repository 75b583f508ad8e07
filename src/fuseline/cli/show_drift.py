"""How a drift check looks on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from fuseline.monitor.compare import DriftResult
from fuseline.monitor.report import Subject

SHOWN = 20


def show_drift(subject: Subject, result: DriftResult, console: Console) -> None:
    """The table, worst first, and the verdict."""
    grid = Grid(
        "feature", "test", "score", "PSI", "p", "what changed",
        title=f"{escape(subject.name)} {escape(subject.version)}: {result.rows} rows", title_justify="left",
    )  # fmt: skip
    for f in result.findings[:SHOWN]:
        grid.add_row(
            escape(f.feature),
            f.test,
            f"{f.score:.3g}",
            "" if f.psi is None else f"{f.psi:.3f}",
            f"{f.adjusted:.1g}",
            escape(f.words),
            style="bold red" if f.alarm else "",
        )
    if result.findings:
        console.print(grid)
    if len(result.findings) > SHOWN:
        console.print(f"… and {len(result.findings) - SHOWN} checks that changed less (--out writes all of them)")
    for note in (*subject.notes, *result.notes):
        console.print(f"· {note}", markup=False, soft_wrap=True)
    live = subject.live
    if live is not None and live.accuracy is not None:
        was = "" if subject.expected is None else f"; {subject.expected:.3f} on the package's test rows"
        console.print(f"live accuracy {live.accuracy:.3f} ({live.low:.3f} … {live.high:.3f}, {live.rows} labels){was}")
    elif live is not None and live.error is not None:
        console.print(f"live mean absolute error {live.error:.4g} ({live.rows} labels)")
    elif live is not None:
        console.print("no label belongs to a row of the log")
    if live is not None and live.unmatched:
        console.print(f"{live.unmatched} labels belong to no row of the log")
    alarms = sum(f.alarm for f in result.findings)
    if not result.findings:
        console.print("nothing was checked")
    elif alarms:
        console.print(f"drift found: {alarms} of {len(result.findings)} checks alarm", style="bold red")
    else:
        console.print(f"no drift found in {len(result.findings)} checks", style="green")
