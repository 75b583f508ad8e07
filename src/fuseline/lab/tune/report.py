"""study.json, best.yaml and tune.html: what a search tried, what was best, and what mattered."""

from __future__ import annotations

from collections import Counter
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

import fuseline
from fuseline.errors import FuselineError
from fuseline.lab.report.plots import Bar, Line, Plot, curves, ranking
from fuseline.lab.report.report import render
from fuseline.lab.report.words import clean, fmt
from fuseline.lab.tune.space import apply
from fuseline.lab.tune.study import Study, quiet
from fuseline.package.files import finite, write_json, write_text
from fuseline.recipe import dump_recipe

FEWEST = 8
"""completed trials from which importance can be told"""
STATES = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "given up", TrialState.FAIL: "failed"}


def write_search(study: Study) -> dict[str, Any]:
    """Write all three. Raises FuselineError ``no_trial`` where no trial was completed."""
    best = study.best()
    if best is None:
        reasons = [t.user_attrs["why"].splitlines()[0] for t in study.trials if t.user_attrs.get("why")]
        if not reasons:
            hint = f"give it more time or trials: fuseline tune --resume {study.folder}"
            raise FuselineError("no_trial", "no trial was completed: none was run to its end", hint)
        (why, often), *_ = Counter(reasons).most_common(1)
        message = f"no trial was completed; {often} of {len(study.trials)} ended with: {why}"
        raise FuselineError("no_trial", message, "mend the recipe or its tune.space, and begin a new search")
    changes = best.user_attrs["changes"]
    write_text(study.folder / "best.yaml", dump_recipe(apply(study.recipe, changes)))
    trials = [_told(t) for t in study.trials]
    result: dict[str, Any] = {
        "metric": study.metric,
        "best": {"trial": best.number, "value": best.value, "changes": changes},
        "counts": dict(Counter(t["state"] for t in trials)),
        "importance": _importance(study),
        "trials": trials,
    }
    result = finite(result)
    write_json(study.folder / "study.json", result)
    write_text(study.folder / "tune.html", render("tune.html.j2", _page(study, result)))
    return result


def _told(trial: FrozenTrial) -> dict[str, Any]:
    seconds = trial.duration.total_seconds() if trial.duration is not None else None
    return {
        "trial": trial.number,
        "state": STATES.get(trial.state, "running"),
        "value": trial.value,
        "changes": trial.user_attrs.get("changes", {}),
        "why": trial.user_attrs.get("why", ""),
        "seconds": seconds,
    }


def _importance(study: Study) -> dict[str, float]:
    """Shares of the metric's variance that each key explains (fANOVA: Hutter et al. 2014), greatest first."""
    done = [t for t in study.trials if t.state == TrialState.COMPLETE]
    if len(done) < FEWEST or len({t.value for t in done}) < 2:
        return {}
    with quiet():
        found = optuna.importance.get_param_importances(
            study.optuna, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=study.seed)
        )
    return {k: float(v) for k, v in found.items()}


def _page(study: Study, result: dict[str, Any]) -> dict[str, Any]:
    metric, best = str(result["metric"]), result["best"]
    done = [t for t in result["trials"] if t["state"] == "completed"]
    sign = 1 if study.optuna.direction == optuna.study.StudyDirection.MAXIMIZE else -1
    leads: list[float] = []
    for trial in done:
        leads.append(max([*leads[-1:], trial["value"]], key=lambda v: sign * v))
    plots: list[Plot] = []
    if len(done) > 1:
        numbers = [float(t["trial"]) for t in done]
        lines = [Line("best so far", numbers, leads), Line("each trial", numbers, [t["value"] for t in done])]
        plots.append(curves(f"Validation {metric}", lines, "trial", metric))
    if result["importance"]:
        bars = [Bar(k, v) for k, v in result["importance"].items()]
        plots.append(ranking("What mattered", bars, "share of the variance explained"))
    paths = list(study.space)
    rows = [
        [
            str(t["trial"]),
            t["state"] + (f": {clean(t['why'], 120)}" if t["why"] else ""),
            fmt(t["value"]) if t["value"] is not None else "–",
            *(clean(str(t["changes"].get(p, "")), 24) for p in paths),
        ]
        for t in sorted(result["trials"], key=lambda t: (t["value"] is None, -sign * (t["value"] or 0)))
    ]
    return {
        "version": fuseline.__version__,
        "title": clean(study.folder.resolve().name, 80),
        "sentence": f"{best['value']:.4g} on validation rows, trial {best['trial']} of {len(result['trials'])}. The "
        "test rows took no part: train best.yaml to know what it is worth.",
        "metric": metric,
        "value": fmt(best["value"]),
        "plots": plots,
        "headings": ["trial", "state", metric, *paths],
        "rows": rows,
        "recipe": (study.folder / "best.yaml").read_text(encoding="utf-8"),
    }
