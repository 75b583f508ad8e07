"""How explanations look on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from fuseline.explain.schema import Explanation, Explanations, Inside, Quantity
from fuseline.explain.words import change, failure, figure, remarks, standing, subject, then

BAR = 12
"""characters of the longest bar to one side"""
PARTS = 8
SHOWN = 20
FOR, AGAINST = "dark_orange3", "dodger_blue2"


def show_explanations(found: Explanations, console: Console | None = None) -> None:
    """Each row, at most 20, and the means over all."""
    console = console or Console(highlight=False)
    for row in found.rows[:SHOWN]:
        _show_row(row, console)
    if len(found.rows) > SHOWN:
        console.print(f"and {len(found.rows) - SHOWN} rows more, in the means below")
    of = next((r.of for r in found.rows if r.of is not None), None)
    if of is None or found.summary.rows < 2:
        return
    grid = Grid("input", "mean of |share|", "95 % interval", "rows", title="all rows", title_justify="left")
    for name, mean in sorted(found.summary.importance.items(), key=lambda m: -m[1].value):
        span = "" if mean.low is None or mean.high is None else f"{change(of, mean.low)} … {change(of, mean.high)}"
        grid.add_row(Text(name), change(of, mean.value).lstrip("+"), span.replace("+", ""), str(mean.rows))
    console.print(grid)


def _show_row(row: Explanation, console: Console) -> None:
    if row.of is None or row.quantity is None or row.inputs is None:
        console.print(Text(f"row {row.row}: {failure(row)}", style="bold red"))
        return
    of = row.of
    head = Text(f"row {row.row}: ", style="bold")
    head.append(f"{subject(of)} is {figure(of, row.quantity)}; without any input {figure(of, row.inputs.base)}")
    console.print(head)
    for fact in standing(row):
        console.print(Text(f"  {fact}"))
    _bars(console, [(n, v) for n, v in row.inputs.values.items()], of)
    for part in row.inside:
        _show_inside(part, of, console)
    for one in row.what_if:
        if one.changes is None or one.quantity is None or one.change is None:
            if one.error:
                console.print(Text(f"  with {one.changes}: {one.error}", style="red"))
            continue
        cells = ", ".join(f"{k} = {v}" if v not in (None, "") else f"{k} absent" for k, v in one.changes.items())
        answer = then(of, one)
        said = f"{figure(of, one.quantity)} ({change(of, one.change)})" + (f", answer {answer}" if answer else "")
        console.print(Text(f"  with {cells}: {said}"))
    for near in row.nearest:
        console.print(
            Text(f"  like row {near.row} of the index{'' if near.id is None else f' ({near.id})'}: {near.score:.3f}")
        )
    for note in remarks(row):
        console.print(Text(f"  {note}", style="dim"))


def _bars(console: Console, entries: list[tuple[str, float]], of: Quantity) -> None:
    most = max((abs(v) for _, v in entries), default=0.0) or 1.0
    wide = min(32, max((len(n) for n, _ in entries), default=0))
    for name, value in sorted(entries, key=lambda e: -abs(e[1])):
        size = round(BAR * abs(value) / most)
        line = Text(f"  {name[:wide]:<{wide}} ")
        line.append(" " * BAR if value >= 0 else " " * (BAR - size) + "█" * size, style=AGAINST)
        line.append("│", style="dim")
        line.append(("█" * size if value >= 0 else "").ljust(BAR), style=FOR)
        line.append(f" {change(of, value)}")
        console.print(line)


def _show_inside(part: Inside, of: Quantity, console: Console) -> None:
    console.print(Text(f"  inside {part.input}, by {part.unit} ({part.method}):", style="dim"))
    most = max((abs(p.value) for p in part.parts), default=0.0) or 1.0
    if part.unit == "word" and part.text is not None:
        line, at = Text("  "), 0
        for word in part.parts:
            start, stop = int(word.place[0]), int(word.place[1])
            if stop <= start:  # special tokens, which gradients reach and nobody reads
                continue
            line.append(part.text[at:start])
            strong = abs(word.value) / most
            style = "" if strong < 0.2 else f"{'bold ' if strong > 0.5 else ''}{FOR if word.value > 0 else AGAINST}"
            line.append(part.text[start:stop], style=style)
            at = stop
        line.append(part.text[at:])
        console.print(line)
        return
    if part.unit == "patch":
        side = round(len(part.parts) ** 0.5)
        for r in range(len(part.parts) // max(1, side)):
            line = Text("  ")
            for patch in part.parts[r * side : (r + 1) * side]:
                shade = " ░▒▓█"[round(4 * abs(patch.value) / most)]
                line.append(shade * 2, style=FOR if patch.value > 0 else AGAINST)
            console.print(line)
        return
    strongest = sorted(part.parts, key=lambda p: -abs(p.value))[:PARTS]
    _bars(console, [(p.label, p.value) for p in strongest], of)
