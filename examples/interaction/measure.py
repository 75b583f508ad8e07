"""How good the models are: by the inputs that a turn has, on wordings never heard, and what the replies say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from examples.interaction import turn, words
from examples.interaction.data import REPLIES, TURNS
from fuseline import Predictor

INPUTS = ("speech", "transcript", "face")
BATCH = 32


def answers(predictor: Predictor, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for start in range(0, len(rows), BATCH):
        out += [a.to_dict() for a in predictor.predict(rows[start : start + BATCH])]
    return out


def subsets(degradation: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a run's degradation table: both tasks' accuracy by the inputs that may be seen."""
    return [
        {
            "inputs": entry["present"],
            "rows": entry["rows"],
            **{task: entry["metrics"][f"{task}.accuracy"]["value"] for task in ("emotion", "intent")},
        }
        for entry in degradation
    ]


def turns_of(folder: Path) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """The test turns, and their rows as a caller would send them."""
    table = pl.read_csv(folder / TURNS).filter(pl.col("part") == "test")
    rows = []
    for row in table.select(INPUTS).iter_rows(named=True):
        files = {n: (folder / row[n]).read_bytes() if row[n] else None for n in ("speech", "face")}
        rows.append({**files, "transcript": row["transcript"]})
    return table, rows


def asked(predictor: Predictor, table: pl.DataFrame, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By what a turn has: how often the intent is sure enough to act on, and how often it is right then."""
    out = []
    for given in (INPUTS, ("transcript",), ("speech",), ("face",)):
        kept = [i for i, row in enumerate(rows) if any(row[n] is not None for n in given)]
        said = answers(predictor, [{n: rows[i][n] if n in given else None for n in INPUTS} for i in kept])
        found = [turn.understood(a)["intent"] for a in said]
        truth = [table["intent"][i] for i in kept]
        acted = [f == t for f, t in zip(found, truth, strict=True) if f != words.UNSURE]
        out.append(
            {
                "inputs": list(given),
                "turns": len(kept),
                "acted_on": len(acted) / len(kept) if kept else None,
                "right": float(np.mean(acted)) if acted else None,
            }
        )
    return out


def wordings(predictor: Predictor, table: pl.DataFrame) -> dict[str, Any]:
    """Intents from the words alone: of wordings that training had, and of those that it never had."""
    spoken = table.drop_nulls("transcript")
    said = answers(predictor, [{"transcript": text} for text in spoken["transcript"]])
    right = np.array([a["value"]["intent"] for a in said]) == spoken["intent"].to_numpy()
    pairs = zip(spoken["transcript"], spoken["intent"], strict=True)
    new = np.array([words.wording_is_new(text, intent) for text, intent in pairs], dtype=bool)
    kinds = {"known": ~new, "new": new}
    return {k: {"turns": int(m.sum()), "intent": float(right[m].mean()) if m.any() else None} for k, m in kinds.items()}


def replies(predictor: Predictor, folder: Path) -> dict[str, Any]:
    """Of situations that no training row had: share of replies that are word for word one of those that fit."""
    table = pl.read_csv(folder / REPLIES, infer_schema=False)
    situations = table.filter(pl.col("part") == "test").select("intent", "emotion", "state").unique(maintain_order=True)
    rows = situations.to_dicts()
    said = [a["value"] for a in answers(predictor, rows)]
    fits = [text in words.replies(r["intent"], r["emotion"], r["state"]) for text, r in zip(said, rows, strict=True)]
    wrong = [{**r, "reply": t} for t, r, fit in zip(said, rows, fits, strict=True) if not fit]
    return {"situations": len(rows), "fit": float(np.mean(fits)) if fits else None, "wrong": wrong[:5]}
