"""How a search ends: the front, what stood in the way, and the chosen model on rows that the search never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fuseline.lab.compress.measure import Ruler, quartiles
from fuseline.lab.compress.seal import reseal
from fuseline.lab.compress.search import Search
from fuseline.lab.compress.subject import lineage
from fuseline.lab.compress.sureness import rechecked, resettled
from fuseline.lab.compress.workshop import BATCHES, Workshop
from fuseline.lab.export.card import compressed_card
from fuseline.lab.export.parity import self_agreement
from fuseline.package import read_package
from fuseline.package.files import finite
from fuseline.runtime import load
from fuseline.tasks.degradation import degradation


def pareto(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of the trials that no other one beats in drop, latency and size at once, smallest drop first."""
    sound = [t for t in trials if t["failed"] is None and t["drop"]["value"] is not None]
    figures = {t["key"]: (t["drop"]["value"], t["latency"]["1"]["median"], t["size_bytes"]) for t in sound}

    def beaten(key: str) -> bool:
        own = figures[key]
        return any(all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in figures.values())

    return sorted((key for key in figures if not beaten(key)), key=lambda key: (figures[key], key))


def obstacles(search: Search, chosen: Mapping[str, Any]) -> list[str]:
    """Why the budget was not met, in words: what the closest one breaks, what takes the time and the bytes, and which
    further cuts cost too much."""
    said = [f"the closest found breaks the budget: {'; '.join(chosen['why_not'])}"]
    budget = search.budget
    trials = [t for t in search.trials.values() if t["failed"] is None]
    fastest = min(trials, key=lambda t: t["latency"]["1"]["median"])
    smallest = min(trials, key=lambda t: t["size_bytes"])
    if budget.max_latency is not None and fastest["latency"]["1"]["median"] > budget.max_latency:
        said.append(f"the fastest found takes {fastest['latency']['1']['median']:.1f} ms: {fastest['words']}")
    elif budget.max_latency is not None and fastest["why_not"]:
        said.append(
            f"the fastest found takes {fastest['latency']['1']['median']:.1f} ms, but: {'; '.join(fastest['why_not'])}"
        )
    if budget.max_size is not None and smallest["size_bytes"] > budget.max_size:
        said.append(f"the smallest found has {smallest['size_bytes'] / 1e6:.1f} MB: {smallest['words']}")
    elif budget.max_size is not None and smallest["why_not"]:
        said.append(
            f"the smallest found has {smallest['size_bytes'] / 1e6:.1f} MB, but: {'; '.join(smallest['why_not'])}"
        )
    by_time = sorted((s for s in search.sensitivity if s["share_of_time"]), key=lambda s: -s["share_of_time"])
    if by_time:
        said.append(
            f"most of the time that a single cut can save is in {by_time[0]['part']} "
            f"({by_time[0]['action']}: {by_time[0]['share_of_time']:.0%})"
        )
    lost = [t for t in trials if search.budget.of_drop(t)]
    if lost:
        said.append(f"{len(lost)} candidates lost too much; the nearest: {min(lost, key=_value)['words']}")
    failed = [t for t in search.trials.values() if t["failed"] is not None]
    if failed:
        said.append(f"{len(failed)} candidates could not be made, e.g. {failed[0]['words']}: {failed[0]['failed']}")
    if search.stopped:
        said.append(search.stopped)
    return said


def _value(trial: Mapping[str, Any]) -> float:
    value = trial["drop"]["value"]
    return float("inf") if value is None else float(value)


def closing(workshop: Workshop, chosen: dict[str, Any], *, threads: int | None) -> dict[str, Any]:
    """Measure the chosen package on the test rows and side by side in time, and write into it what was found."""
    prepared, settings = workshop.subject.prepared, workshop.settings
    rows = prepared.rows("test")
    of = "test" if len(rows) else "val"
    base, before_chosen = workshop.base
    package = read_package(workshop.package_of(chosen))
    predictor = load(package.folder, threads=threads)
    ruler = workshop.ruler
    if len(rows):
        ruler = Ruler(prepared, rows, metric=ruler.metric, bootstrap=max(1000, settings.bootstrap), seed=settings.seed)
        before = ruler.outputs(base, workshop.voice, "testing the model as it was")
    else:
        before = before_chosen
    after = ruler.outputs(predictor, workshop.voice, "testing the chosen one")
    verdict = ruler.compare(before, after)
    times: dict[str, dict[str, Any]] = {"base": {}, "chosen": {}}
    for batch in BATCHES:
        for name, own in zip(times, ruler.race([base, predictor], batch), strict=True):
            times[name][str(batch)] = quartiles(own)
    full = ruler.subsets[0]
    sure = resettled(workshop, predictor)
    promised = {} if sure is None else {"sure": finite(sure.to_dict())}
    scores = prepared.task.score(
        ruler.targets, after[full], bootstrap=max(1000, settings.bootstrap), seed=settings.seed, groups=ruler.groups
    )
    metrics = {
        "task": prepared.task.name,
        "metric": ruler.metric,
        "parts": {of: finite(scores.to_dict())},
        "degradation": finite(
            degradation(
                prepared.task,
                ruler.names,
                ruler.present_NM,
                ruler.targets,
                after,
                bootstrap=200,
                seed=settings.seed,
                groups=ruler.groups,
            )
        ),
    }
    final = {
        "rows": len(ruler.rows),
        "of": of if len(rows) else None,
        "latency": times,
        **vars(verdict),
    }
    parity = self_agreement(predictor, ruler.values(predictor)[:16], tolerance=prepared.recipe.evaluation.tolerance)
    compression = {**lineage(package), "measured": {k: v for k, v in final.items() if k != "subsets"}}
    if sure is not None:
        metrics["sure"] = finite(
            rechecked(workshop, predictor, sure) if len(rows) else {"about": sure.about, "tasks": {}}
        )
    card = compressed_card(
        package.name,
        chosen,
        final,
        ruler.metric,
        compression.get("parent", {}),
        (base.package.folder / "README.md").read_text(encoding="utf-8"),
        metrics,
    )
    task = {"kind": prepared.task.name, "state": prepared.task.state()}
    reseal(
        package,
        package.folder,
        compression=compression,
        card=card,
        task=task,
        metrics=metrics,
        parity=parity,
        **promised,
    )
    return finite(final)  # type: ignore[no-any-return]
