"""Whether two ways to run one model agree, whatever the shape of a batch.

An exporter may fix a length that was to vary, or a batch of one, and the graph still answers the example that it was
traced with. So: batches of 1, 2, 3, 7 and 64, every varying length from its shortest to its longest, each input
absent in turn, from every row or from some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fuseline.errors import FuselineError
from fuseline.lab.export.parity import difference
from fuseline.lab.export.samples import made_value, spread, steps_of
from fuseline.modalities import Modality
from fuseline.progress import Silent, Voice

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], Mapping[str, np.ndarray]]
Lengths = dict[str, int]
"""input -> its arrays' length; `input.letter` -> each further length, where an input has several"""

BATCHES = (1, 2, 3, 7, 64)
LARGEST = 16_384
"""Most elements (rows x length) of one input in a batch, unless 7 rows of the longest have more: batch x length is
what costs, and a batch of 64 of the longest sounds may not fit the memory of the machine."""


class Case(NamedTuple):
    rows: int
    lengths: Lengths
    absent: tuple[str, ...] = ()
    some: bool = False
    """whether `absent` is absent from every other row only"""

    def __str__(self) -> str:
        said = [f"{self.rows} rows", *(f"{n} of length {k}" for n, k in self.lengths.items())]
        if self.absent:
            said.append(f"{', '.join(self.absent)} absent" + (" from every other row" if self.some else ""))
        return ", ".join(said)


def check_lengths(
    run_a: Run,
    run_b: Run,
    modalities: Mapping[str, Modality],
    *,
    tolerance: float,
    batch_sizes: Sequence[int] = BATCHES,
    most_lengths: int = 12,
    rows: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
    voice: Voice | None = None,
) -> dict[str, Any]:
    """Compare two runners of one model over many shapes of batches. Raises FuselineError ``parity``.

    Args:
        run_a: what is right: arrays by graph input name (`present` included) in, outputs by name out.
        run_b: what is to be shown right.
        modalities: fitted, by input, in the order of `present`'s columns.
        tolerance: of :func:`fuseline.lab.export.parity.difference`.
        batch_sizes: numbers of rows.
        most_lengths: about how many lengths of each input between (and with) its shortest and longest.
        rows: parsed real rows, by input, that are compared too.
        seed: of the random contents.
        voice: told of the progress.

    Returns:
        JSON values: what was tried, the largest difference in all, by output, by batch size and by length, and the
        case in which it was found.
    """
    rng = np.random.default_rng(seed)
    found = _Found()
    made, given = list(cases(modalities, batch_sizes, most_lengths)), list(_batches(len(rows), batch_sizes))
    with (voice or Silent()).track("comparing", sum(c.rows for c in made) + len(rows)) as advance:
        for case in made:
            found.compare(str(case), case, run_a, run_b, made_arrays(modalities, case, rng))
            advance(case.rows)
        for start, size in given:
            arrays = collated(modalities, rows[start : start + size])
            found.compare(f"{size} given rows from {start}", Case(size, {}), run_a, run_b, arrays)
            advance(size)
    report = {
        "cases": found.cases,
        "rows": found.rows,
        "batch_sizes": list(batch_sizes),
        "lengths": {f"{n}.{letter}": v for (n, letter), v in _lengths(modalities, most_lengths).items()},
        "max_abs_difference": found.worst,
        "by_output": found.by_output,
        "by_batch_size": found.by_batch,
        "by_length": {name: dict(sorted(by.items())) for name, by in found.by_length.items()},
        "worst_case": found.where,
        "tolerance": tolerance,
    }
    if not found.worst <= tolerance:
        raise FuselineError(
            "parity",
            f"the exported model answers up to {found.worst:.2g} away from the package, more than {tolerance:g} "
            f"({found.where})",
            "nothing was written; raise evaluation.tolerance only if you know why they differ",
        )
    return report


class _Found:
    """What the comparisons have found so far."""

    def __init__(self) -> None:
        self.cases = self.rows = 0
        self.worst, self.where = 0.0, ""
        self.by_output: dict[str, float] = {}
        self.by_batch: dict[int, float] = {}
        self.by_length: dict[str, dict[int, float]] = {}

    def compare(self, title: str, case: Case, run_a: Run, run_b: Run, arrays: Arrays) -> None:
        try:
            wanted, got = run_a(arrays), run_b(arrays)
        except FuselineError:
            raise
        except Exception as error:  # a runtime's private types: which shape it was is what matters
            raise FuselineError(
                "parity", f"the exported model fails on {title}: {str(error)[:500]}", "report this with the recipe"
            ) from error
        self.cases += 1
        self.rows += case.rows
        for name, values in wanted.items():
            if got[name].shape != values.shape or not np.isfinite(got[name]).all():
                what = f"of shape {got[name].shape}, not {values.shape}," if got[name].shape != values.shape else "that"
                raise FuselineError(
                    "parity", f"output {name} {what} is not what the package gives ({title})", "report this"
                )
            gap = difference(values, got[name])
            if gap >= self.worst:
                self.worst, self.where = gap, title
            self.by_output[name] = max(self.by_output.get(name, 0.0), gap)
            self.by_batch[case.rows] = max(self.by_batch.get(case.rows, 0.0), gap)
            for key, length in case.lengths.items():
                by = self.by_length.setdefault(key, {})
                by[length] = max(by.get(length, 0.0), gap)


def cases(modalities: Mapping[str, Modality], batch_sizes: Sequence[int], most_lengths: int) -> Iterator[Case]:
    """Every batch size at the shortest, the longest and a mixture; every length in a small batch; absences."""
    steps = steps_of(modalities)
    bounds: dict[str, tuple[int, int, int]] = {}
    for (name, letter), bound in steps.items():
        bounds[name if name not in bounds else f"{name}.{letter}"] = bound
    low = {name: b[0] for name, b in bounds.items()}
    high = {name: b[1] for name, b in bounds.items()}
    middle = {name: _whole(b[0] + (b[1] - b[0]) // 3, b[0], b[2]) for name, b in bounds.items()}
    for size in batch_sizes:
        yield Case(size, low)
        if bounds:
            yield Case(size, {n: _bounded(high[n], size, b) for n, b in bounds.items()})
        if bounds and size <= 7:  # what costs most is not done a third time
            yield Case(size, middle)
    small = [size for size in batch_sizes if size <= 7] or list(batch_sizes[:1])
    for name, (lowest, highest, step) in bounds.items():
        for i, length in enumerate(spread(lowest, highest, step, most_lengths)):
            others = (low, middle, high)[i % 3]
            yield Case(small[i % len(small)], {**others, name: length})
            yield Case(1, {**(high, low, middle)[i % 3], name: length})
    for name in modalities:
        # What is absent from every row comes in at its shortest.
        without = {**middle, **{key: low[key] for key in low if key.partition(".")[0] == name}}
        yield Case(1, without, (name,))
        yield Case(3, without, (name,))
        yield Case(max(small), middle, (name,), some=True)
    yield Case(1, low, tuple(modalities))
    yield Case(2, low, tuple(modalities))


def made_arrays(modalities: Mapping[str, Modality], case: Case, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A batch of random content: its first row has the case's lengths, the others any up to them."""
    rows = []
    for i in range(case.rows):
        row = {}
        for name, modality in modalities.items():
            length, others = case.lengths.get(name), {}
            for letter in list(modality.lengths)[1:]:
                others[letter] = case.lengths[f"{name}.{letter}"]
            if length is not None and i:
                lowest = next(iter(modality.lengths.values()))[0]
                length = int(rng.integers(lowest, length + 1))
            # The longest row stays where its input is absent from every other one.
            gone = name in case.absent and (i % 2 == 1 if case.some else True)
            row[name] = None if gone else made_value(modality, length, rng, others)
        rows.append(row)
    return collated(modalities, rows)


def collated(modalities: Mapping[str, Modality], rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """A batch of parsed rows as the graph reads it, `present` included."""
    present = np.array([[row[n] is not None for n in modalities] for row in rows], dtype=bool)
    out = {"present": present.reshape(len(rows), len(modalities))}
    for name, modality in modalities.items():
        out |= {f"{name}.{key}": array for key, array in modality.collate([row[name] for row in rows]).items()}
    return out


def _lengths(modalities: Mapping[str, Modality], most: int) -> dict[tuple[str, str], list[int]]:
    return {key: spread(low, high, step, most) for key, (low, high, step) in steps_of(modalities).items()}


def _whole(length: int, low: int, step: int) -> int:
    return low + (length - low) // step * step


def _bounded(length: int, rows: int, bounds: tuple[int, int, int]) -> int:
    low, high, step = bounds
    return _whole(max(low, min(length, max(LARGEST, 7 * high) // rows)), low, step)


def _batches(total: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = turn = 0
    while start < total:
        size = min(sizes[turn % len(sizes)], total - start)
        yield start, size
        start += size
        turn += 1
