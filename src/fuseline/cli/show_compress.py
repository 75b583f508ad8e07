"""What a compression search found, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from fuseline.api.compression import Compressed


def show_compress(found: Compressed, console: Console) -> None:
    result = found.result
    base, chosen = result["trials"][0], found.chosen
    front = [t for t in result["trials"] if t["key"] in result["pareto"] or t in (base, chosen)]
    table = Table(title=f"{len(result['trials'])} candidates; those that no other beats", title_justify="left")
    for column in ("", "MB", "ms", "times faster", f"drop of {result['metric']}", "95 %"):
        table.add_column(column, justify="left" if not column else "right")
    for trial in sorted(front, key=lambda t: -t["size_bytes"]):
        mark = "> " if trial is chosen else "  "
        table.add_row(
            mark + trial["words"],
            f"{trial['size_bytes'] / 1e6:.1f}",
            f"{trial['latency']['1']['median']:.1f}",
            f"{trial['speedup']['1']:.1f}",
            _drop(trial["drop"]),
            _span(trial["drop"]),
        )
    console.print(table)
    final = result["final"]
    rows = f"{final['rows']} {final['of'] or 'validation'} rows"
    ratio = base["size_bytes"] / chosen["size_bytes"]
    latency = final["latency"]
    faster = latency["base"]["1"]["median"] / latency["chosen"]["1"]["median"]
    lines = [
        "the budget is met" if found.met else "the budget is not met; the closest found:",
        f"  {chosen['words']}",
        f"  {ratio:.1f} times smaller ({base['size_bytes'] / 1e6:.1f} to {chosen['size_bytes'] / 1e6:.1f} MB), "
        f"{faster:.1f} times faster "
        f"({latency['base']['1']['median']:.1f} to {latency['chosen']['1']['median']:.1f} ms)",
        f"  {result['metric']} on {rows}: {_drop(final['drop'])} points lost {_span(final['drop'])}".rstrip(),
        *(f"  - {text}" for text in result["obstacles"]),
        f"{found.package}",
        f"{found.report}",
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _drop(drop: Mapping[str, Any]) -> str:
    return "undefined" if drop["value"] is None else f"{drop['value']:+.2f}"


def _span(drop: Mapping[str, Any]) -> str:
    return "" if drop["low"] is None else f"({drop['low']:+.2f} to {drop['high']:+.2f})"
