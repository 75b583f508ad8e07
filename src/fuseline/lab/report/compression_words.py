"""What a search over smaller models found, in sentences: the first screen of its page."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fuseline.lab.report.compression_read import Search, Subset, Trial
from fuseline.lab.report.headline import FEW_ROWS
from fuseline.lab.report.read import Estimate, listing, mapping, number
from fuseline.lab.report.words import NONE, SPACE, clean, count, fmt, join, label, seconds

SAME = 1.05
"""a ratio nearer to 1 than this is called the same"""


def short(value: float | None) -> str:
    """Three significant digits, no exponent in the usual range: `104`, `24.0`, `1,204`."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:#.3g}".rstrip(".")


def ms(value: float | None) -> str:
    return NONE if value is None else f"{short(value)}{SPACE}ms"


def megabytes(octets: float | None) -> str:
    return NONE if octets is None else f"{short(octets / 1e6)}{SPACE}MB"


def points(value: float | None) -> str:
    """A drop's number: two decimals, fewer from ten on; never a minus before zero."""
    if value is None:
        return NONE
    size = abs(value)
    text = f"{size:,.{0 if size >= 100 else 1 if size >= 10 else 2}f}"
    return f"−{text}" if value < 0 and float(text.replace(",", "")) else text


def span(drop: Estimate) -> str:
    """`−0.41 to 1.12`, or nothing where no interval was computed."""
    return "" if drop.low is None or drop.high is None else f"{points(drop.low)} to {points(drop.high)}"


def in_unit(value: float, unit: str) -> str:
    return f"{points(value)}{SPACE}{'point' if unit == 'points' and points(value) == '1.00' else unit}"


def change(drop: Estimate, unit: str, up: bool) -> str:
    """`0.34 points less (95 %: −0.41 to 1.12)`: the metric's way from the float model to the smaller one."""
    if drop.value is None:
        return "not known"
    fell = drop.value >= 0
    seen = drop if fell else Estimate("gain", -drop.value, _minus(drop.high), _minus(drop.low))
    text = "the same" if points(drop.value) == "0.00" else ""
    text = text or f"{in_unit(abs(drop.value), unit)} {'less' if fell == up else 'more'}"
    return text + (f" (95{SPACE}%: {span(seen)})" if span(seen) else "")


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def times(ratio: float | None, more: str, less: str, equal: str) -> tuple[str, str]:
    """A ratio as a figure and its word: `4.3`, `smaller`; turned round below 1."""
    if ratio is None or ratio <= 0:
        return NONE, equal
    if 1 / SAME < ratio < SAME:
        return "1", equal
    size = max(ratio, 1 / ratio)
    return f"{size:,.{0 if size >= 10 else 1}f}", more if ratio > 1 else less


def smaller(base: Trial, chosen: Trial) -> tuple[str, str]:
    ratio = base.size / chosen.size if base.size and chosen.size else None
    return times(ratio, "smaller", "larger", "as large")


def faster(search: Search, rows: int | None) -> tuple[str, str]:
    return times(search.times(rows)[2], "faster", "slower", "as fast")


def in_words(figure: tuple[str, str]) -> str:
    return figure[1] if figure[0] in ("1", NONE) else f"{figure[0]} times {figure[1]}"


def calls(rows: int | None) -> str:
    return "" if rows is None else "for one row" if rows == 1 else f"for {rows} rows"


def limits(search: Search) -> list[tuple[str, str, bool | None]]:
    """The budget: a limit, what was reached, and whether that keeps it (None where it is not known)."""
    trial, rows, out = search.chosen, next(iter(search.spans), None), []
    drop = trial.drop.value if trial else None
    size = trial.size / 1e6 if trial and trial.size else None
    for name, title, unit, reached, said in (
        ("max_latency_ms", "Latency", f"{SPACE}ms", trial.median(rows) if trial else None, ms),
        ("max_size_mb", "Size", f"{SPACE}MB", size, lambda v: megabytes(None if v is None else v * 1e6)),
        ("max_drop", "Drop", f"{SPACE}{search.unit}", drop, _of_choosing),
    ):
        if (limit := search.limit(name)) is not None:
            kept = None if reached is None else reached <= limit
            out.append((f"{title}, at most {limit:,g}{unit}", said(reached), kept))
    return out


def _of_choosing(drop: float | None) -> str:
    return NONE if drop is None else f"{points(drop)} on the rows that chose"


def evidence(search: Search) -> tuple[Subset | None, str]:
    """The scores that speak for the chosen model, and which rows they are of: unseen ones where there are any."""
    last = search.unseen
    if last is not None and last.whole.drop.value is not None:
        rows = last.rows or last.whole.rows
        return replace(last.whole, rows=rows), f"on {count(rows)} {clean(last.of, 30)} rows that the search never saw"
    if search.chosen is None or search.base is None:
        return None, ""
    rows = number(mapping(search.raw.get("rows")).get("select"))
    whole = Subset((), rows, search.base.score, search.chosen.score, search.chosen.drop)
    return whole, f"on the {count(rows)} rows that chose it"


@dataclass(frozen=True)
class Head:
    title: str
    verdict: str
    figures: list[tuple[str, str, str]]
    """value, word, range"""
    sentence: str
    words: str
    """the chosen model's own description"""
    obstacles: list[str]
    cautions: list[str]
    facts: list[tuple[str, str]]


def head(search: Search) -> Head:
    base, chosen, rows = search.base, search.chosen, next(iter(search.spans), None)
    figures, sentence = [], ""
    if base is not None and chosen is not None and chosen is not base:
        seen, where = evidence(search)
        sizes = f"{short(_mega(base.size))} → {megabytes(chosen.size)}"
        before, after, _ = search.times(rows)
        spans = f"{short(before.value if before else None)} → {ms(after.value if after else None)}"
        small, fast = smaller(base, chosen), faster(search, rows)
        figures = [(_times(small[0]), small[1], sizes), (_times(fast[0]), fast[1], f"{spans} {calls(rows)}".strip())]
        sentence = f"It is {in_words(small)} ({sizes})"
        sentence += f", {in_words(fast)} ({spans}{' ' + calls(rows) if rows else ''})"
        if seen is not None and seen.drop.value is not None:
            name, unit = label(search.metric), search.unit
            moved = f"{fmt(seen.base)} → {fmt(seen.score)}"
            # the number apart from its words: `0.34` and `points less AUROC`; a percentage keeps its sign
            word = change(Estimate("", seen.drop.value), unit, search.up)
            number_, _, word = word.partition(SPACE) if word != "the same" else ("0", "", "the same")
            if unit == "%":
                number_, word = f"{number_}{SPACE}%", word.removeprefix("% ")
            interval = f"; drop {span(seen.drop)}, 95{SPACE}%" if span(seen.drop) else ""
            figures.append((number_, f"{word} {name}", f"{moved}{interval}"))
            sentence += f", {name} {moved}: {change(seen.drop, unit, search.up)}, {where}"
        sentence += "."
    raw = mapping(search.raw.get("model"))
    return Head(
        title=clean(raw.get("name") or "A model", 120),
        verdict=_verdict(search),
        figures=figures,
        sentence=sentence,
        words=clean(chosen.words, 400) if chosen is not None and chosen is not base else "",
        obstacles=_obstacles(search),
        cautions=cautions(search),
        facts=_facts(search),
    )


def _mega(octets: float | None) -> float | None:
    return None if octets is None else octets / 1e6


def _times(figure: str) -> str:
    return figure if figure == NONE else f"{figure}×"


def _verdict(search: Search) -> str:
    names = (("max_latency_ms", "ms"), ("max_size_mb", "MB"), ("max_drop", f"{search.unit} lost"))
    asked = [f"{v:,g}{SPACE}{unit}" for name, unit in names if (v := search.limit(name)) is not None]
    said = f"at most {join(asked)}" if asked else "no limit was set"
    if search.raw.get("status") == "searching":
        return f"The search is not finished ({said})."
    if search.chosen is None:
        return f"Budget not met ({said}), and no candidate could be chosen."
    if search.chosen is search.base:
        return f"Budget {'met' if search.met else 'not met'} ({said}): nothing found is better than the float model."
    return f"Budget met ({said})." if search.met else f"Budget not met ({said}). What follows is the closest found."


def _obstacles(search: Search) -> list[str]:
    found = search.raw.get("obstacles")
    own = search.chosen.why_not if search.chosen is not None else []
    return [] if search.met else [clean(o, 600) for o in listing(found) or own]


def cautions(search: Search) -> list[str]:
    """What a reader must know before believing the figures above."""
    chosen, limit, out = search.chosen, search.max_drop, []
    if chosen is None or chosen is search.base:
        return []
    seen, where = evidence(search)
    if search.unseen is None:
        out.append(
            "No rows were kept from the search: these are measured on the rows that chose the model, and flatter it."
        )
    first, most = next(iter(search.spans), None), search.limit("max_latency_ms")
    again = search.times(first)[1]
    if search.met and most is not None and again is not None and (again.value or 0.0) > most:
        out.append(f"Timed once more at the end, it took {ms(again.value)}: above the budget of {most:,g}{SPACE}ms.")
    if seen is None or seen.drop.value is None:
        return [*out, "The drop could not be computed: nothing is known about what the smaller model loses."]
    if seen.rows and seen.rows < FEW_ROWS:
        out.append(f"Measured on only {count(seen.rows)} rows: read every drop with its interval.")
    if limit is not None and seen.drop.value > limit and search.met:
        out.append(
            f"The budget of {in_unit(limit, search.unit)} was kept on the rows that chose the model, but "
            f"{where} the drop is {in_unit(seen.drop.value, search.unit)}."
        )
    elif limit is not None and seen.drop.value <= limit and (seen.drop.high or limit) > limit:
        out.append(
            f"The interval of the drop reaches {in_unit(seen.drop.high or 0.0, search.unit)}: so few rows do not rule "
            f"out a drop above {in_unit(limit, search.unit)}."
        )
    return out


def _facts(search: Search) -> list[tuple[str, str]]:
    said = {True: "kept", False: "not kept", None: "not measured"}
    out = [(name, f"{reached}, {said[kept]}") for name, reached, kept in limits(search)]
    failed = sum(t.failed is not None for t in search.trials)
    measured = f"{count(len(search.trials) - failed)} measured" + (f", {count(failed)} failed" if failed else "")
    out += [("Models", measured), ("Time", seconds(number(search.raw.get("seconds"))))]
    out.append(("Made", clean(search.raw.get("created") or "")[:16].replace("T", " ")))
    return [(k, v) for k, v in out if v and v != NONE]
