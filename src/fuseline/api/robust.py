"""Robustness from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fuseline.api.run import Run
from fuseline.api.training import need_training
from fuseline.package.files import write_json
from fuseline.progress import voice


def robustness(
    model: str | Path | Run, table: Any = None, *, bootstrap: int = 200, rows: int = 400, quiet: bool = False
) -> dict[str, Any]:
    """How a model holds under noise, with inputs absent, and attacked; needs torch, for gradients.

    Of a run without `table`, the result is also left in RUN/robustness.json and its report is written again.

    Args:
        model: a run, its folder, or a package with float weights.
        table: rows with the target; default: the run's own held-out rows.
        bootstrap: resamples of the clean figure's 95 % interval.
        rows: measured at most, drawn with the recipe's seed.
        quiet: say nothing.

    Returns:
        `clean`: metrics; `noise`, `absent`, `attacked`: input -> `curve`, a list of a strength (or a share of rows) and
        metrics. See docs/robustness.md.
    """
    need_training()
    from fuseline.lab.report import write_report
    from fuseline.lab.robustness.open import measure_package

    folder = model.folder if isinstance(model, Run) else Path(model)
    speak = voice("quiet" if quiet else "auto")
    found = measure_package(folder, table, voice=speak, bootstrap=bootstrap, most=rows)
    if table is None and (folder / "run.json").exists():
        write_json(folder / "robustness.json", found)
        if (folder / "report.html").exists():
            write_report(folder)
    return found
