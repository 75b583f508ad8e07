"""Explanations against what can be known: deletion and insertion curves beside random order, shuffled weights,
completeness, and the made clinic's own truth.

python benchmarks/explanations.py --chest RUN --speech RUN --demo FOLDER --rows 24

Runs: `chest-xray` (the recipe of benchmarks/chest_xray.py), `speech-emotion` (its audio alone), `fuseline demo`. Only
rows that no run was trained on are explained. Intervals: 95 % bootstrap over rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import DATA, tell

import fuseline
from fuseline.data.table import Table
from fuseline.explain import deletion, insertion
from fuseline.explain import quantity as of_answer
from fuseline.explain.parts import parts_of
from fuseline.explain.shapley import shapley, subsets
from fuseline.modalities import MediaRoot
from fuseline.modalities.rows import Parsed
from fuseline.tasks.bootstrap import intervals

RANDOM_ORDERS = 2
POINTS = 8


def held_out(run: Path) -> list[int]:
    import polars as pl

    frame = pl.read_parquet(run / "predictions.parquet", columns=["row", "part"])
    return [int(r) for r in frame.filter(pl.col("part") == "test")["row"]]


def cases(run: Path, table: Any, media: Path, name: str, count: int) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Predictor, the row's cells, its parse, and what is explained: of held-out rows that have the input."""
    predictor = fuseline.load(run)
    opened = Table.open(table)
    rows = np.random.default_rng(0).permutation(held_out(run))
    done = 0
    for row in rows:
        [cells] = Table.rows(opened.take(np.array([row]), [c for c in predictor.rows.columns if c in opened.columns]))
        parsed = predictor.parse(cells, MediaRoot(str(media)), int(row))
        if parsed.error is not None or parsed.values[name] is None:
            continue
        [answer] = predictor.answer([parsed])
        yield predictor, cells, parsed, of_answer.choose(predictor.task, answer)
        done += 1
        if done == count:
            return


def curves(run: Path, table: Any, media: Path, name: str, count: int, alone: bool) -> dict[str, np.ndarray]:
    """Row by row: areas of occlusion's order and of random ones. `alone`: the other inputs are absent, so that this one
    decides."""
    out: dict[str, list[float]] = {"deletion": [], "random deletion": [], "insertion": [], "random insertion": []}
    rng = np.random.default_rng(1)
    for predictor, cells, parsed, of in cases(run, table, media, name, count):
        modality = predictor.rows.modalities[name]
        values = dict.fromkeys(predictor.names) | {name: parsed.values[name]} if alone else parsed.values
        if alone:
            [answer] = predictor.answer([Parsed(values)])
            of = of_answer.choose(predictor.task, answer)

        def score(some: list[Any], values: Any = values, predictor: Any = predictor, of: Any = of) -> np.ndarray:
            answers = predictor.answer([Parsed({**values, name: v}) for v in some], 16)
            return np.array([of_answer.read(of, a) for a in answers])

        parts = parts_of(modality, predictor.rows.cells(name, cells), parsed.values[name], grid=6, most=24)[0]
        if len(parts) < 4:
            continue
        lost = score([parsed.values[name]])[0] - score([parts.without([i]) for i in range(len(parts))])
        order = np.argsort(-lost, kind="stable").tolist()
        out["deletion"].append(deletion(parts, order, score, POINTS).area)
        out["insertion"].append(insertion(parts, order, score, POINTS).area)
        chance = [rng.permutation(len(parts)).tolist() for _ in range(RANDOM_ORDERS)]
        out["random deletion"].append(float(np.mean([deletion(parts, o, score, POINTS).area for o in chance])))
        out["random insertion"].append(float(np.mean([insertion(parts, o, score, POINTS).area for o in chance])))
    return {key: np.array(values) for key, values in out.items()}


def mean(values: np.ndarray) -> str:
    """Mean with its interval."""
    spans = intervals(lambda w: {"mean": w @ values / w.sum(axis=1)}, len(values), resamples=2000)
    low, high = spans.get("mean", (float("nan"), float("nan")))
    return f"{values.mean():.3f} ({low:.3f} … {high:.3f})"


def told(title: str, found: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        "input": title,
        "rows": len(found["deletion"]),
        "deletion": f"{found['deletion'].mean():.3f}",
        "random": f"{found['random deletion'].mean():.3f}",
        "lower by": mean(found["random deletion"] - found["deletion"]),
        "insertion": f"{found['insertion'].mean():.3f}",
        "random ": f"{found['random insertion'].mean():.3f}",
        "higher by": mean(found["insertion"] - found["random insertion"]),
    }


def truth(folder: Path, count: int) -> list[dict[str, Any]]:
    """Shares of the model against those of the perfect judge, who knows the law that the clinic was drawn from."""
    from fuseline.demo.statement import CLASSES, MODALITIES
    from fuseline.demo.truth import load_truth

    run, law = folder / "run", load_truth(folder)
    predictor = fuseline.load(run)
    rows = sorted(np.random.default_rng(0).permutation(held_out(run))[:count].tolist())
    table = Table.open(folder / "table.csv")
    cells = Table.rows(table.take(np.array(rows), predictor.rows.columns))
    judge = {frozenset(s): law.posterior(sorted(s), rows) for s in subsets(MODALITIES)}
    ours: dict[str, list[float]] = {m: [] for m in MODALITIES}
    best: dict[str, list[float]] = {m: [] for m in MODALITIES}
    first, worst = 0, 0.0
    for label in CLASSES:  # every class of every row, so that no answer is preferred
        found = predictor.explain(cells, media=folder, of=label)
        for i, row in enumerate(found.rows):
            assert row.inputs is not None
            worst = max(worst, abs(row.inputs.gap))
            names = tuple(row.inputs.values)
            known = shapley(names, {s: float(judge[s][i, CLASSES.index(label)]) for s in subsets(names)})
            for name in names:
                ours[name].append(row.inputs.values[name])
                best[name].append(known[name])
            if names and label == row.answer["value"]:
                first += max(names, key=row.inputs.values.__getitem__) == max(names, key=known.__getitem__)
    out = []
    for name in MODALITIES:
        a, b = np.array(ours[name]), np.array(best[name])
        out.append(
            {
                "input": name,
                "shares": len(a),
                "mean size, model": f"{np.abs(a).mean():.3f}",
                "mean size, judge": f"{np.abs(b).mean():.3f}",
                "mean difference": mean(np.abs(a - b)),
                "correlation": f"{np.corrcoef(a, b)[0, 1]:.3f}",
            }
        )
    print(f"{len(rows)} rows; the input of the largest share is the judge's in {first}; largest gap {worst:.1e}")
    return out


def gradients(run: Path, table: Any, media: Path, names: list[str], count: int) -> list[dict[str, Any]]:
    """Completeness, and what random weights of the encoder leave of the order of parts (Adebayo et al. 2018)."""
    import torch

    from fuseline.explain import explain_rows
    from fuseline.lab.attribute import attribute_rows
    from fuseline.lab.attribute import rows as attribute

    build, root, out = attribute.rebuild, MediaRoot(str(media)), []
    for name in names:
        chosen = list(cases(run, table, media, name, count))
        predictor = chosen[0][0]
        cells = [cells for _, cells, _, _ in chosen]
        plain = explain_rows(predictor, cells, media=root)

        def attributed(name: str = name, predictor: Any = predictor, plain: Any = plain, cells: Any = cells) -> Any:
            return [
                row.inside[0]
                for row in attribute_rows(predictor.package, plain.rows, cells, media=root, inside=[name], grid=6)
            ]

        def shuffled(*args: Any, place: int = predictor.names.index(name)) -> Any:
            model = build(*args)
            torch.manual_seed(0)
            with torch.no_grad():
                for weight in model.encoders[place].parameters():
                    weight.copy_(weight.flatten()[torch.randperm(weight.numel())].reshape(weight.shape))
            return model

        first = attributed()
        attribute.rebuild, attribute.FAR = shuffled, 10.0
        other = attributed()
        attribute.rebuild, attribute.FAR = build, 1e-2
        ranks = []
        for a, b in zip(first, other, strict=True):
            x, y = (np.array([p.value for p in part.parts]).argsort().argsort() for part in (a, b))
            if len(x) > 2:
                ranks.append(float(np.corrcoef(x, y)[0, 1]))
        gaps = np.abs([part.gap for part in first])
        out.append(
            {
                "input": name,
                "rows": len(first),
                "largest gap": f"{gaps.max():.1e}",
                "complete to 1e-3": int((gaps <= 1e-3).sum()),
                "steps (median)": int(np.median([part.outputs for part in first])),
                "rank correlation with shuffled weights": mean(np.array(ranks)),
            }
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("chest", "speech", "demo"):
        parser.add_argument(f"--{name}", type=Path, help="a finished run; left out: its figures are")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--only", default="curves,truth,gradients")
    parser.add_argument("--inputs", default="image,notes,vitals", help="of chest-xray, those that are looked into")
    args = parser.parse_args()
    only, inputs, rows = args.only.split(","), args.inputs.split(","), []
    chest, speech = DATA / "chest-xray", DATA / "speech-emotion"
    if "curves" in only:
        if args.chest:
            for name in [n for n in ("image", "notes") if n in inputs]:
                found = curves(args.chest, chest / "table.csv", chest, name, args.rows, alone=True)
                rows.append(told(f"chest-xray {name}", found))
        if args.speech:
            found = curves(args.speech, speech / "table.csv", speech, "audio", args.rows, alone=True)
            rows.append(told("speech-emotion audio", found))
        if rows:
            tell("deletion (lower is better) and insertion (higher is better), mean probability", rows, None)
    if "gradients" in only and args.chest:
        found_rows = gradients(args.chest, chest / "table.csv", chest, inputs, min(8, args.rows))
        tell("integrated gradients, chest-xray", found_rows, None)
    if "gradients" in only and args.demo:
        names = ["picture", "note", "sound", "vitals"]
        found_rows = gradients(args.demo / "run", args.demo / "table.csv", args.demo, names, min(8, args.rows))
        tell("integrated gradients, fuseline demo", found_rows, None)
    if "truth" in only and args.demo:
        tell("shares against the perfect judge's, fuseline demo", truth(args.demo, 8 * args.rows), None)


if __name__ == "__main__":
    main()
