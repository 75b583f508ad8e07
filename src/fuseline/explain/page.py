"""The explanations of some rows as one HTML file without script or network, by the standard library and Pillow."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from fuseline.explain import pictures
from fuseline.explain.schema import Explanation, Explanations, Inside, Mean, Quantity, WhatIf
from fuseline.explain.words import change, failure, figure, lean, remarks, standing, subject, then, unit
from fuseline.modalities import MediaRoot
from fuseline.modalities.audio import Audio
from fuseline.modalities.cells import shorten
from fuseline.modalities.document import Page
from fuseline.modalities.image import Image
from fuseline.package.files import write_text
from fuseline.runtime import Predictor

SHOWN = 20
"""rows that have a section of their own"""
MOST_BARS = 24
FAINT = 0.1
"""of the largest share of an input: what parts do below it is drawn faint, not blown up to full colour"""
PLURALS = {"patch": "patches", "second": "moments", "column": "cells"}
NOUNS = {"second": "moment", "column": "cell"}
_PAGE = Path(__file__).with_name("page.html")


def write_page(
    path: Path, found: Explanations, predictor: Predictor, rows: Sequence[Mapping[str, Any]], media: MediaRoot
) -> None:
    """Write the page. `rows`: the explained rows' cells, in the order of `found.rows`."""
    write_text(path, render(found, predictor, rows, media))


def render(found: Explanations, predictor: Predictor, rows: Sequence[Mapping[str, Any]], media: MediaRoot) -> str:
    """The page's text."""
    shown = list(zip(found.rows, rows, strict=True))[:SHOWN]
    count = len(found.rows)
    lead = (
        f"{count} row{'' if count == 1 else 's'} explained by asking version {found.model['version'][:12]} again with "
    )
    lead += f"inputs left out: {sum(r.outputs for r in found.rows):,} answers in all."
    if count > SHOWN:
        lead += f" The first {SHOWN} are shown below; the means are over all."
    notice = predictor.package.recipe.notice
    fields = {
        "name": say(found.model["name"]),
        "lead": say(lead),
        "notice": "" if notice is None else f'<p class="bad"><b>Notice.</b> {say(notice, 2000)}</p>',
        "summary": _summary(found),
        "links": "".join(f'<a href="#row-{r.row}">row {r.row}</a>' for r, _ in shown) if len(shown) > 1 else "",
        "rows": "".join(_row(r, predictor, cells, media) for r, cells in shown),
    }
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(fields)


def say(text: object, limit: int = 400) -> str:
    """Text for a page: escaped, without control characters, cut."""
    whole = "".join(c if _shown(c) else "\N{REPLACEMENT CHARACTER}" for c in str(text)[: limit + 1])
    return html.escape(whole if len(whole) <= limit else whole[: limit - 1] + "…")


def _shown(c: str) -> bool:
    """Whether a character may stand on a page: with the wide blanks and the joiners that some alphabets are written
    with, without controls and overrides of direction."""
    return c.isprintable() or c in "\n\u200c\u200d\u200e\u200f" or unicodedata.category(c) == "Zs"


def _summary(found: Explanations) -> str:
    if found.summary.rows < 2:
        return ""
    of = next(r.of for r in found.rows if r.of is not None)
    left = f"<div><h3>Mean size of each input's share</h3>{_means(of, found.summary.importance, signed=False)}</div>"
    several = "".join(
        f"<div><h3>Mean share where the answer is {say(label)}</h3>{_means(of, means, signed=True)}</div>"
        for label, means in list(found.summary.by_class.items())[:6]
        if label
    )
    note = f"In {unit(of)}, over the rows that have the input, with a 95 % bootstrap interval over rows."
    return f'<section><h2>All rows</h2><p class="quiet">{note}</p><div class="two">{left}{several}</div></section>'


def _means(of: Quantity, means: Mapping[str, Mean], *, signed: bool) -> str:
    most = max((abs(m.value) for m in means.values()), default=0.0) or 1.0
    out = []
    for name, mean in sorted(means.items(), key=lambda m: -abs(m[1].value)):
        span = "" if mean.low is None or mean.high is None else f"{change(of, mean.low)} … {change(of, mean.high)}"
        text = change(of, mean.value) if signed else change(of, mean.value).lstrip("+")
        span = span if signed else span.replace("+", "")
        out.append(
            f'<tr><th>{say(name, 60)}</th>{_bar(mean.value / most)}<td class="n">{text}</td>'
            f'<td class="n quiet">&ensp;{span}</td><td class="n quiet">&ensp;{mean.rows}</td></tr>'
        )
    head = (
        "<th></th>" + '<th class="bar"></th>' + "".join(f'<th class="n">{h}</th>' for h in ("mean", "interval", "rows"))
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(out)}</tbody></table>"


def _bar(share: float) -> str:
    left, size = lean(share)
    kind = "for" if share > 0 else "against"
    return f'<td class="bar"><i><b class="{kind}" style="left:{left:.1f}%;width:{size:.1f}%"></b></i></td>'


def _row(row: Explanation, predictor: Predictor, cells: Mapping[str, Any], media: MediaRoot) -> str:
    anchor = f'<section id="row-{row.row}"><div class="head"><h2>Row {row.row}</h2>'
    if row.error is not None or row.of is None or row.quantity is None or row.inputs is None:
        return f'{anchor}</div><p class="bad">{say(failure(row))}</p></section>'
    of = row.of
    title = f"<b>{say(_name(of, predictor), 120)} {figure(of, row.quantity)}</b>"
    facts = "".join(f'<span class="quiet">{say(fact)}</span>' for fact in standing(row))
    values = predictor.parse(cells, media, row.row).values if row.inside else {}
    least = FAINT * max((abs(v) for v in row.inputs.values.values()), default=0.0)
    known = predictor.rows.modalities
    inside = "".join(_inside(of, p, known.get(p.input), values.get(p.input), cells, least) for p in row.inside)
    notes = "".join(f'<p class="quiet">{say(n)}</p>' for n in remarks(row))
    columns = f'<div class="two">{_shares(row, of)}{_what_if(of, row.what_if)}</div>'
    return f"{anchor}{title}{facts}</div>{columns}{inside}{_nearest(row)}{notes}</section>"


def _name(of: Quantity, predictor: Predictor) -> str:
    """What stands before the figure: the target, and the class."""
    columns = predictor.task.columns
    target = of.target or (columns[0] if len(columns) == 1 else "")
    return ": ".join(n for n in (target, of.label) if n) or "answer"


def _shares(row: Explanation, of: Quantity) -> str:
    assert row.inputs is not None
    assert row.quantity is not None
    values, errors = row.inputs.values, row.inputs.errors or {}
    most = max((abs(v) for v in values.values()), default=0.0) or 1.0
    lines = []
    for name, value in sorted(values.items(), key=lambda v: -abs(v[1])):
        error = f" ± {change(of, errors[name]).lstrip('+')}" if name in errors else ""
        lines.append(
            f'<tr><th>{say(name, 60)}</th>{_bar(value / most)}<td class="n">{change(of, value)}{error}</td></tr>'
        )
    base = f"Without any input {figure(of, row.inputs.base)}, with these {figure(of, row.quantity)}"
    how = "exact Shapley values" if row.inputs.method == "exact" else "Shapley values from random orders"
    return f"""<div><h3>What each input adds to {say(subject(of))}</h3><table><tbody>{"".join(lines)}</tbody></table>
<p class="quiet">{base}. Shares in {unit(of)} ({how}, {row.inputs.outputs} answers).</p></div>"""


def _what_if(of: Quantity, found: Sequence[WhatIf]) -> str:
    lines = []
    for one in found:
        if one.absent is not None:
            what = f"{one.absent} absent"
        else:
            changes = (one.changes or {}).items()
            what = ", ".join(f"{k} = {str(v)[:30]}" if v not in (None, "") else f"{k} absent" for k, v in changes)
        if one.quantity is None or one.change is None:
            cells = f'<td colspan="3">{say(one.error or "")}</td>'
        else:
            cells = f"<td>{say(then(of, one), 60)}</td>"
            cells += f'<td class="n">{figure(of, one.quantity)}</td><td class="n">&ensp;{change(of, one.change)}</td>'
        lines.append(f"<tr><th>{say(what, 120)}</th>{cells}</tr>")
    head = f'<th class="n">{say(of.label or "it is", 40)}</th><th class="n">&ensp;change</th>'
    head = f"<tr><th></th><th>answer then</th>{head}</tr>"
    return f"<div><h3>What if</h3><table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table></div>"


def _inside(of: Quantity, part: Inside, modality: Any, value: Any, cells: Mapping[str, Any], least: float) -> str:
    numbers = [p.value for p in part.parts]
    most = max([least, *map(abs, numbers)]) or 1.0
    word = PLURALS.get(part.unit, part.unit + "s")
    how = f"Each {NOUNS.get(part.unit, part.unit)} is hidden in turn ({part.hidden})"
    if part.method != "occlusion":
        how = f"Integrated gradients, the path begins at {part.hidden}"
    scale = f"{change(of, most).lstrip('+')} {unit(of)}"
    note = f"{say(how)}. The strongest colour or the longest bar stands for {scale}."
    drawn = _drawn(of, part, modality, value, cells, numbers, most)
    return f'<div class="part"><h3>Inside {say(part.input, 60)}: {word}</h3>{drawn}<p class="quiet">{note}</p></div>'


def _drawn(
    of: Quantity,
    part: Inside,
    modality: Any,
    value: Any,
    cells: Mapping[str, Any],
    numbers: list[float],
    most: float,
) -> str:
    places = [p.place for p in part.parts]
    if part.unit == "word" and part.text is not None:
        return _text(part.text, places, numbers, most, of)
    if part.unit == "patch" and value is not None:
        pixels: Any = value.pixels if isinstance(value, Page) else value
        facts = getattr(value, "facts", {})
        stretched = isinstance(modality, Image) and modality.config.resize == "stretch"
        aspect = facts.get("width", 1.0) / max(1.0, facts.get("height", 1.0)) if stretched else 1.0
        whole = pictures.data_uri(pictures.sized(pixels, aspect))
        tinted = pictures.data_uri(pictures.heat(pixels, places, numbers, most, aspect))
        shown = (
            (part.input, whole, "as the model sees it"),
            ("the same with heat", tinted, "orange: speaks for it · blue: against it"),
        )
        figures = (
            f'<figure><img alt="{say(alt)}" src="{source}"><figcaption>{caption}</figcaption></figure>'
            for alt, source, caption in shown
        )
        return f'<div class="pair">{"".join(figures)}</div>'
    if part.unit == "second" and value is not None:
        end = places[-1][1]
        drawn = pictures.data_uri(pictures.spectrogram(np.asarray(value)))
        high = f", 0 to {modality.config.sample_rate / 2:,.0f} Hz upwards" if isinstance(modality, Audio) else ""
        axis = f'<div class="axis"><span>0 s</span><span>loudness by pitch{high}</span><span>{end:.2f} s</span></div>'
        bars = pictures.strip(places, numbers, most, end)
        return f'<div class="wide"><img alt="spectrogram" src="{drawn}">{bars}{axis}</div>'
    if part.unit == "step" and value is not None:
        spans = [(a, b + 1) for a, b in places]
        axis = f'<div class="axis"><span>step 1</span><span>step {len(value)}</span></div>'
        drawn = pictures.strip(spans, numbers, most, len(value))
        return f'<div class="wide">{pictures.lines(np.asarray(value))}{drawn}{axis}</div>'
    order = sorted(range(len(numbers)), key=lambda i: -abs(numbers[i]))
    lines = (
        f"<tr><th>{_part(part.parts[i].label, part.unit, cells)}</th>{_bar(numbers[i] / most)}"
        f'<td class="n">{change(of, numbers[i])}</td></tr>'
        for i in order[:MOST_BARS]
    )
    more = f'<p class="quiet">{len(order) - MOST_BARS} more did less.</p>' if len(order) > MOST_BARS else ""
    return f'<table style="max-width:520px"><tbody>{"".join(lines)}</tbody></table>{more}'


def _part(label: str, unit: str, cells: Mapping[str, Any]) -> str:
    """A part's name, of a column with what stands in it."""
    if unit != "column" or label not in cells:
        return say(label, 80)
    return f'{say(label, 60)} <span class="quiet">{say(shorten(cells[label], 40), 60)}</span>'


def _text(text: str, places: Sequence[Sequence[float]], numbers: Sequence[float], most: float, of: Quantity) -> str:
    out, at = [], 0
    for (start, stop), number in zip(places, numbers, strict=True):
        if stop <= start:  # special tokens, which gradients reach and nobody reads
            continue
        colour = ", ".join(map(str, pictures.FOR if number > 0 else pictures.AGAINST))
        out.append(say(text[at : int(start)], 10**6))
        tint = f"background:rgba({colour},{0.75 * abs(number) / most:.2f})"
        out.append(
            f'<span style="{tint}" title="{change(of, number)}">{say(text[int(start) : int(stop)], 10**6)}</span>'
        )
        at = int(stop)
    return f'<div class="words" dir="auto">{"".join(out)}{say(text[at:], 10**6)}</div>'


def _nearest(row: Explanation) -> str:
    if not row.nearest:
        return ""
    lines = []
    for near in row.nearest:
        held = "; ".join(f"{k}: {shorten(v, 60)}" for k, v in near.cells.items() if v is not None)
        name = f"row {near.row}" + ("" if near.id is None else f" · {near.id}")
        lines.append(
            f'<tr><th>{say(name, 80)}</th><td class="n">{near.score:.3f}</td><td>&ensp;{say(held, 300)}</td></tr>'
        )
    head = '<tr><th>row of the index</th><th class="n">cosine</th><th>&ensp;what it holds</th></tr>'
    table = f"<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="part"><h3>Nearest by fused embedding</h3>{table}</div>'
