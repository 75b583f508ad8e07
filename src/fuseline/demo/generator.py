"""Writes the made clinic: table.csv with pictures and sounds beside it, and the truth for the checker.

Each visit has its own random stream, so a table of 100 rows is the head of the table of 1,000 with the same seed.
Dimensions: C diagnoses.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.random import Generator

from fuseline.demo import media
from fuseline.demo import statement as st
from fuseline.demo.truth import Array, DemoTruth
from fuseline.errors import FuselineError

HEADER = ("patient", "visited", "picture", "note", "sound", *st.VITALS, "diagnosis")
MADE = (
    "All data here is made: no patient, illness or hospital behind it exists, and nothing in it is medical knowledge."
)


@dataclass
class Visit:
    """One drawn row: what the cells show and how likely that is under each diagnosis."""

    signs: dict[str, list[str]] = field(default_factory=dict)
    """picture, sound: the signs they show; note: the topics of its sentences"""
    vitals: dict[str, str] = field(default_factory=dict)
    """present vital signs, as written in the table"""
    evidence: dict[str, Array] = field(default_factory=dict)
    """modality -> log-likelihood [C]; absent modalities have none"""


def _log(chances: Any) -> Array:
    return np.log(np.asarray(chances, dtype=np.float64))


def _binary_signs(table: Mapping[str, st.Chance], y: int, rng: Generator) -> tuple[list[str], Array]:
    drawn = {sign: bool(rng.random() < chance[y]) for sign, chance in table.items()}
    log_C = sum((_log(c if drawn[s] else 1 - np.array(c)) for s, c in table.items()), np.zeros(len(st.CLASSES)))
    return [s for s, yes in drawn.items() if yes], log_C


def _topics(y: int, rng: Generator) -> tuple[list[str], Array]:
    names, chances = list(st.SENTENCES), np.array(list(st.SENTENCES.values()))
    count = 1 + int(rng.choice(len(st.SENTENCE_COUNT), p=st.SENTENCE_COUNT))
    drawn = rng.choice(len(names), size=count, p=chances[:, y])
    return [names[i] for i in drawn], _log(chances[drawn]).sum(axis=0)


def _vital(name: str, y: int, rng: Generator) -> tuple[str, Array]:
    """One vital sign as written, and its log-likelihood [C]."""
    if name in st.NUMBERS:
        law = st.NUMBERS[name]
        steps = round(rng.normal(law.mean[y], law.deviation[y]) / law.step)
        value = steps * law.step if law.top is None else min(steps * law.step, law.top)
        return f"{value:.{0 if law.step == 1 else 1}f}", _log(
            [law.likelihood(value, c) for c in range(len(st.CLASSES))]
        )
    if name == "cough":
        kinds = list(st.COUGH)
        kind = kinds[int(rng.choice(len(kinds), p=[st.COUGH[k][y] for k in kinds]))]
        return kind, _log(st.COUGH[kind])
    if name == "allergy":
        yes = bool(rng.random() < st.ALLERGY[y])
        return ("true" if yes else "false"), _log(st.ALLERGY if yes else 1 - np.array(st.ALLERGY))
    return str(int(rng.integers(18, 90))), np.zeros(len(st.CLASSES))


def draw_visit(y: int, rng: Generator) -> Visit:
    """Draw one visit of a patient with diagnosis `y` from the stated model."""
    visit = Visit()
    drawn = {
        "picture": _binary_signs(st.PICTURE, y, rng),
        "note": _topics(y, rng),
        "sound": _binary_signs(st.SOUND, y, rng),
    }
    for name, (signs, log_C) in drawn.items():
        if rng.random() >= st.ABSENT:
            visit.signs[name], visit.evidence[name] = signs, log_C
    taken = rng.random() >= st.NO_VITALS
    single = (st.ABSENT - st.NO_VITALS) / (1 - st.NO_VITALS)
    for name in st.VITALS:
        written, log_C = _vital(name, y, rng)
        if taken and rng.random() >= single:
            visit.vitals[name] = written
            visit.evidence["vitals"] = visit.evidence.get("vitals", 0) + log_C
    return visit


def generate(folder: str | Path, rows: int = 1200, seed: int = 0) -> DemoTruth:
    """Write the clinic to `folder`: table.csv, images/, sounds/, and truth.csv, truth.json for whoever checks.

    Args:
        folder: a new or empty folder, or one that an earlier demo wrote.
        rows: visits; some patients have two.
        seed: same seed, same bytes in the table.

    Raises:
        FuselineError: ``bad_argument`` for less than 10 rows, ``folder_not_empty`` where other files would be mixed in.
    """
    if rows < 10:
        raise FuselineError("bad_argument", f"a demo of {rows} rows teaches nothing", "take 200 or more")
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "truth.json").exists():
        raise FuselineError("folder_not_empty", f"{folder} holds other files", "choose a new folder with --out")
    for sub in ("images", "sounds"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
        for old in (folder / sub).iterdir():
            old.unlink()
    truth = _write_table(folder, rows, seed)
    truth.save(folder / "truth.csv")
    (folder / "truth.json").write_text(json.dumps(_summary(truth, seed), indent=2) + "\n", encoding="utf-8")
    return truth


def _write_table(folder: Path, rows: int, seed: int) -> DemoTruth:
    labels: list[int] = []
    visits: list[Visit] = []
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, HEADER, restval="")
        out.writeheader()
        patient, again = -1, False
        while len(visits) < rows:
            row = len(visits)
            rng = np.random.default_rng([seed, row])
            if not again:  # a new patient, whose traits a second visit shares
                patient += 1
                y = int(rng.choice(len(st.CLASSES), p=st.PRIOR))
                body = (float(rng.uniform(0.85, 1.1)), float(rng.uniform(0.85, 1.1)))
                again = bool(rng.random() < st.SECOND_VISIT)
            else:
                again = False
            visit = draw_visit(y, rng)
            day = date(2020, 1, 1) + timedelta(days=int(rng.integers(0, 1000)))
            cells = {"patient": f"P{patient:04d}", "visited": day.isoformat(), "diagnosis": st.CLASSES[y]}
            out.writerow(cells | visit.vitals | _write_media(folder, row, visit, body, rng))
            labels.append(y)
            visits.append(visit)
    zero_C = np.zeros(len(st.CLASSES))
    return DemoTruth(
        np.array(labels),
        {m: np.array([v.evidence.get(m, zero_C) for v in visits]) for m in st.MODALITIES},
        {m: np.array([m in v.evidence for v in visits]) for m in st.MODALITIES},
    )


def _write_media(folder: Path, row: int, visit: Visit, body: tuple[float, float], rng: Generator) -> dict[str, str]:
    cells = {}
    if "picture" in visit.signs:
        cells["picture"] = f"images/{row:05d}.png"
        media.picture(visit.signs["picture"], body, rng).save(folder / cells["picture"])
    if "sound" in visit.signs:
        cells["sound"] = f"sounds/{row:05d}.wav"
        soundfile.write(folder / cells["sound"], media.sound(visit.signs["sound"], rng), media.RATE)
    if "note" in visit.signs:
        cells["note"] = media.note(visit.signs["note"], rng)
    return cells


def _summary(truth: DemoTruth, seed: int) -> dict[str, Any]:
    """The model that the rows were drawn from, and the best that any model can do on all of them."""
    subsets = [[m] for m in st.MODALITIES] + [list(st.MODALITIES)]
    return {
        "made": MADE,
        "seed": seed,
        "rows": len(truth.labels),
        "absent_share": {m: round(1 - float(truth.present[m].mean()), 4) for m in st.MODALITIES},
        "best_accuracy": {"+".join(s): dataclasses.asdict(truth.bayes_accuracy(s)) for s in subsets},
        "model": {
            "classes": st.CLASSES,
            "prior": st.PRIOR,
            "picture": st.PICTURE,
            "sound": st.SOUND,
            "sentences": st.SENTENCES,
            "sentence_count": st.SENTENCE_COUNT,
            "numbers": {k: dataclasses.asdict(v) for k, v in st.NUMBERS.items()},
            "cough": st.COUGH,
            "allergy": st.ALLERGY,
            "absent": st.ABSENT,
            "no_vitals": st.NO_VITALS,
        },
    }
