"""Explanations by asking the model again: which answers are needed, and what they say. Dimensions: M inputs of a row.

A row's questions are known before any of them is asked, so whoever has a model (a predictor here, a server's batches
there) answers them as it answers rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fuseline.errors import FuselineError, closest
from fuseline.explain import quantity as of_answer
from fuseline.explain.parts import Parts, parts_of
from fuseline.explain.schema import ByInput, Explanation, Explanations, Inside, PartValue, Quantity, WhatIf
from fuseline.explain.shapley import EXACT_MOST, ORDERS, Subset, orders, prefixes, sampled, shapley, subsets
from fuseline.explain.summary import summarise
from fuseline.modalities import MediaRoot
from fuseline.modalities.cells import shorten
from fuseline.modalities.rows import Parsed, RowParser
from fuseline.modalities.tabular import Tabular
from fuseline.runtime import Answer

if TYPE_CHECKING:
    from fuseline.runtime import Predictor


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    inside: bool | Sequence[str] = False
    """also the parts of inputs: of all, or of those named"""
    of: str | None = None
    """the class or target that is explained; default: the answered class, the first target"""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """column -> another cell: what would the answer be"""
    grid: int = 8
    """patches along each side of a picture"""
    most_parts: int = 64
    """parts of a text, sound or series at most; neighbours are taken together beyond it"""
    most_outputs: int = 4096
    """answers that one row may take"""
    orders: int = ORDERS
    """random orders where a row has more inputs than are taken exactly"""
    seed: int = 0

    def check(self, parser: RowParser) -> None:
        """Raises FuselineError ``unknown_column``, ``bad_usage``."""
        for name in () if isinstance(self.inside, bool) else self.inside:
            if name not in parser.names:
                raise FuselineError(
                    "unknown_column", f"the model has no input {name!r}", f"it has: {', '.join(parser.names)}"
                )
        for column in self.changes:
            if column not in parser.columns:
                near = closest(column, parser.columns)
                hint = f"did you mean {near!r}?" if near else f"it reads: {', '.join(parser.columns)}"
                raise FuselineError("unknown_column", f"the model reads no column {column!r}", hint)
        if not (1 <= self.grid <= 64 and self.most_parts >= 1 and self.orders >= 4 and self.most_outputs >= 1):
            raise FuselineError("bad_usage", "grid is 1 to 64, most_parts at least 1, orders at least 4")

    def looks_into(self, name: str) -> bool:
        return self.inside if isinstance(self.inside, bool) else name in self.inside


@dataclass
class Plan:
    """One row's questions. `asked[0]` is the row itself."""

    row: int
    asked: list[Parsed]
    options: Options
    used: tuple[str, ...] = ()
    chosen: list[tuple[str, ...]] | None = None
    """random orders, where the subsets are not all asked"""
    sets: dict[Subset, int] = field(default_factory=dict)
    """subset -> place in `asked`"""
    divided: list[tuple[str, str, Parts, int]] = field(default_factory=list)
    """input, modality, its parts, place of the first of them in `asked`"""
    changed: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def afford(self, more: int) -> None:
        """Raises FuselineError ``too_large`` where that many questions more are too many: before any of them is made,
        since each may hold a picture."""
        count = len(self.asked) + more
        if count > self.options.most_outputs:
            raise FuselineError(
                "too_large",
                f"this row's explanation takes {count} answers or more, at most {self.options.most_outputs} are given",
                "look into fewer inputs, with a coarser grid or fewer parts, or allow more",
                row=self.row,
            )


def plan_row(
    parser: RowParser, row: Mapping[str, Any], parsed: Parsed, options: Options, *, media: MediaRoot, place: int
) -> Plan:
    """The questions about one row. Raises FuselineError ``too_large`` where they are more than `options.most_outputs`.

    `row`: its raw cells; `parsed`: what they were read as. A row that could not be read has one question: itself.
    """
    plan = Plan(place, [parsed], options)
    if parsed.error is not None:
        return plan
    values = parsed.values
    plan.used = tuple(n for n in parser.names if values[n] is not None)
    if len(plan.used) > EXACT_MOST:
        plan.chosen = orders(plan.used, options.orders, options.seed)
        wanted = [*prefixes(plan.chosen), *(frozenset(plan.used) - {n} for n in plan.used)]
    else:
        wanted = subsets(plan.used)
    plan.afford(len(set(wanted)) - 1)
    for subset in dict.fromkeys(wanted):
        if len(subset) == len(plan.used):
            plan.sets[subset] = 0
            continue
        plan.sets[subset] = len(plan.asked)
        plan.asked.append(_with(parsed, {n: None for n in plan.used if n not in subset}))
    for name in plan.used:
        if options.looks_into(name):
            _divide(plan, parser, name, row)
    changes = [{column: cell} for column, cell in options.changes.items()]
    plan.notes += _unseen(parser, parsed, row)
    if len(changes) > 1:
        changes.append(dict(options.changes))
    plan.afford(len(changes))
    for one in changes:
        plan.changed.append((one, len(plan.asked)))
        plan.asked.append(parser.parse({**row, **one}, media, place))
        if len(one) == 1:
            plan.notes += [n for n in _unseen(parser, plan.asked[-1], one) if n not in plan.notes]
    return plan


def _unseen(parser: RowParser, parsed: Parsed, cells: Mapping[str, Any]) -> list[str]:
    """Of these cells those that say what no training row said: an explanation of one is of any such value."""
    out = []
    for name, modality in parser.modalities.items():
        value = parsed.values.get(name)
        if isinstance(modality, Tabular) and value is not None:
            told = ((c, shorten(cells[c])) for c in modality.unseen(value) if c in cells)
            out += [f"{c}: {cell} is no value of the training rows; all such are one to the model" for c, cell in told]
    return out


def _with(parsed: Parsed, changes: Mapping[str, Any]) -> Parsed:
    return Parsed({**parsed.values, **changes})


def _divide(plan: Plan, parser: RowParser, name: str, row: Mapping[str, Any]) -> None:
    parsed, modality, options = plan.asked[0], parser.modalities[name], plan.options
    divisions = parts_of(
        modality, parser.cells(name, row), parsed.values[name], grid=options.grid, most=options.most_parts
    )
    if not any(len(parts) for parts in divisions):
        plan.notes.append(
            f"{name} ({modality.name}) has no parts that can be hidden: only the whole input is explained"
        )
    for parts in divisions:
        if not len(parts):
            continue
        plan.afford(len(parts))
        plan.divided.append((name, modality.name, parts, len(plan.asked)))
        plan.asked += [_with(parsed, {name: parts.without([i])}) for i in range(len(parts))]


def finish(plan: Plan, answers: Sequence[Answer], task: Any) -> Explanation:
    """What the answers to a plan's questions say. A row that cannot be explained says why."""
    whole, options = answers[0], plan.options
    if whole.error is not None:
        return _failed(plan, whole, whole.error)
    try:
        of = of_answer.choose(task, whole, options.of)
        value = of_answer.read(of, whole)
        inputs = _by_input(plan, answers, of)
        inside = tuple(
            Inside(
                input=name,
                modality=modality,
                method="occlusion",
                unit=parts.unit,
                hidden=parts.hidden,
                parts=tuple(
                    PartValue(label=label, place=spot, value=value - of_answer.read(of, answers[first + i]))
                    for i, (label, spot) in enumerate(zip(parts.labels, parts.places, strict=True))
                ),
                text=parts.text,
                seen=parts.seen,
                outputs=len(parts),
            )
            for name, modality, parts, first in plan.divided
        )
        return Explanation(
            row=plan.row,
            answer=whole.to_dict(),
            of=of,
            quantity=value,
            inputs=inputs,
            inside=inside,
            what_if=tuple(_what_if(plan, answers, of, value)),
            notes=tuple(plan.notes),
            outputs=len(plan.asked),
        )
    except FuselineError as error:
        return _failed(plan, whole, error.at(plan.row))


def _failed(plan: Plan, whole: Answer, error: FuselineError) -> Explanation:
    return Explanation(row=plan.row, answer=whole.to_dict(), notes=tuple(plan.notes), error=error.to_dict(), outputs=1)


def _by_input(plan: Plan, answers: Sequence[Answer], of: Quantity) -> ByInput:
    outputs = {subset: of_answer.read(of, answers[place]) for subset, place in plan.sets.items()}
    base, whole = outputs[frozenset()], outputs[frozenset(plan.used)]
    errors = None
    if plan.chosen is None:
        values = shapley(plan.used, outputs)
    else:
        values, errors = sampled(plan.chosen, outputs)
    return ByInput(
        method="exact" if errors is None else "sampled",
        base=base,
        values=values,
        errors=errors,
        gap=base + sum(values.values()) - whole,
        outputs=len(plan.sets),
    )


def _what_if(plan: Plan, answers: Sequence[Answer], of: Quantity, value: float) -> list[WhatIf]:
    def told(then: Answer, absent: str | None, changes: dict[str, Any] | None) -> WhatIf:
        if then.error is not None:
            said = str(then.error.message)
            return WhatIf(absent=absent, changes=changes, value=None, quantity=None, change=None, error=said)
        found = of_answer.read(of, then)
        return WhatIf(
            absent=absent,
            changes=changes,
            value=then.value,
            suggestion=of_answer.leaning(of, then),
            quantity=found,
            change=found - value,
            error=None,
        )

    out = [told(answers[plan.sets[frozenset(plan.used) - {name}]], name, None) for name in plan.used]
    for cells, place in plan.changed:
        changes = {column: cell if _is_plain(cell) else shorten(cell) for column, cell in cells.items()}
        out.append(told(answers[place], None, changes))
    return out


def _is_plain(cell: Any) -> bool:
    """Whether JSON can hold a cell. Of files' bytes it is told how many they are."""
    return cell is None or isinstance(cell, (str, int, float, list, dict))


def explain_rows(
    predictor: Predictor,
    rows: Sequence[Mapping[str, Any]],
    options: Options | None = None,
    *,
    media: MediaRoot | None = None,
    places: Sequence[int] | None = None,
    batch_size: int = 32,
) -> Explanations:
    """Explain rows by a package's own answers. A row that cannot be read or explained carries its error.

    Args:
        predictor: the model.
        rows: mappings of column to cell.
        options: what is asked for.
        media: where file cells may be read from; None: nowhere.
        places: the rows' numbers in their table; default: 0, 1, ...
        batch_size: questions run at once.

    Cost: 2^M answers a row of M present inputs (sampled beyond 10), one a part, one a change.
    """
    if isinstance(rows, Mapping):
        raise FuselineError("bad_rows", "explain takes a list of rows", "wrap the one row: explain([row])")
    options, media = options or Options(), media or MediaRoot(None)
    options.check(predictor.rows)
    out = []
    for place, row in zip(places or range(len(rows)), rows, strict=True):
        parsed = predictor.parse(row, media, place)
        plan = plan_row(predictor.rows, row, parsed, options, media=media, place=place)
        out.append(finish(plan, predictor.answer(plan.asked, batch_size), predictor.task))
    package = predictor.package
    return Explanations(
        model={"name": package.name, "version": package.version}, rows=tuple(out), summary=summarise(out)
    )


def with_nearest(explanation: Explanation, nearest: Sequence[Any]) -> Explanation:
    """The same with its neighbours."""
    return explanation.model_copy(update={"nearest": tuple(nearest)})


__all__ = ["Options", "Plan", "explain_rows", "finish", "plan_row", "with_nearest"]
