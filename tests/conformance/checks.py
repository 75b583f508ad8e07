"""What holds for every kind, whatever runs it: the model itself or the package that it became."""

from __future__ import annotations

from typing import Any

import numpy as np
from conformance.subjects import TOLERANCE, Outputs, Runner, Subject, gap

NEIGHBOURS = 32
MOST_WALKED = 5


def same_answer(subject: Subject, a: Outputs, b: Outputs, place: int) -> None:
    """Row 0 of `a` is row `place` of `b`: equal outputs, equal decoded answer."""
    assert gap(a, b, slice(0, 1), slice(place, place + 1)) < TOLERANCE
    one = subject.task.decode({k: v[:1] for k, v in a.items()})[0].value
    two = subject.task.decode({k: v[place : place + 1] for k, v in b.items()})[0].value
    if isinstance(one, str) or (isinstance(one, list) and all(isinstance(v, str) for v in one)):
        assert one == two
    else:
        np.testing.assert_allclose(numbers(one), numbers(two), rtol=TOLERANCE, atol=TOLERANCE)


def numbers(value: Any) -> list[float]:
    """All numbers of an answer; a text or a label list stands for itself by its hash."""
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    if value is None:
        return []
    return [float(hash(value) % 1000) if isinstance(value, (str, bool)) else float(value)]


def answers_alike_in_any_company(subject: Subject, run: Runner) -> None:
    """Each input absent in turn: alone, first, middle, last among 32 others, in other order, under long padding."""
    company = subject.rows[-NEIGHBOURS:]
    assert len(company) == NEIGHBOURS
    for hidden in (None, *subject.names):
        row = {**subject.full} if hidden is None else {**subject.full, hidden: None}
        alone = run([row])
        for place in (0, NEIGHBOURS // 2, NEIGHBOURS):
            same_answer(subject, alone, run([*company[:place], row, *company[place:]]), place)
        same_answer(subject, alone, run([*company[::-1][:11], row, *company[::-1][11:]]), 11)
        same_answer(subject, alone, run([row, subject.long]), 0)
        same_answer(subject, alone, run([subject.nothing, row, subject.short]), 1)


def order_does_not_matter(subject: Subject, run: Runner) -> None:
    order = np.random.default_rng(0).permutation(len(subject.rows))
    straight, mixed = run(subject.rows), run([subject.rows[i] for i in order])
    assert gap(straight, mixed, order) < TOLERANCE


def every_subset_answers(subject: Subject, run: Runner) -> None:
    """All 2^M subsets of inputs, none at all included, in one batch and each alone: finite, and no two the same.

    Of more than five inputs: none, each alone, all but each, and all."""
    count = len(subject.names)
    kept = [[bool(bits >> i & 1) for i in range(count)] for bits in range(2**count)]
    if count > MOST_WALKED:
        kept = [keep for keep in kept if sum(keep) in (0, 1, count - 1, count)]
    rows = [{n: subject.full[n] if k else None for n, k in zip(subject.names, keep, strict=True)} for keep in kept]
    together = run(rows)
    for i, row in enumerate(rows):
        same_answer(subject, run([row]), together, i)
    embedding = together["embedding"]
    for i in range(len(rows)):
        for j in range(i):
            assert np.abs(embedding[i] - embedding[j]).max() > 10 * TOLERANCE, "an input's absence made no difference"


def what_is_present_matters(subject: Subject, run: Runner) -> None:
    """The checks above would pass on a model that looks at nothing."""
    for name in subject.names:
        changed = {**subject.full, name: subject.other[name]}
        out = run([subject.full, changed])
        assert gap(out, out, slice(0, 1), slice(1, 2)) > 10 * TOLERANCE, f"{name} is not looked at"
