"""How good the warnings were, and what silent sensors cost: on the test rows, by the package itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from examples.city.replay import Replay, quantiles_of
from examples.city.warn import Threshold, levels, proof
from fuseline import Predictor

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75)
MOST_ROWS = 300
BATCH = 16


def answers(predictor: Predictor, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for start in range(0, len(rows), BATCH):
        out += [a.to_dict() for a in predictor.predict(rows[start : start + BATCH])]
    return out


def some(replay: Replay, most: int) -> list[int]:
    """Places evenly over the recording."""
    return sorted({int(p) for p in np.linspace(0, len(replay) - 1, min(most, len(replay)))})


def warned(predictor: Predictor, replay: Replay, threshold: Threshold, most: int = MOST_ROWS) -> dict[str, Any]:
    """See :func:`warn.proof`; `covered`: the share of all numbers inside the 80 % interval."""
    places = some(replay, most)
    said = [quantiles_of(a) for a in answers(predictor, [replay.row(p) for p in places])]
    truth_NKC = np.stack([replay.truth(p) for p in places])
    now_NC = np.stack([_last(replay.past(p)) for p in places])
    level_NC = np.stack([levels(q.low, q.middle, q.high, threshold)[0] for q in said])
    inside_NKC = np.stack([(t >= q.low) & (t <= q.high) for t, q in zip(truth_NKC, said, strict=True)])
    known_NKC = ~np.isnan(truth_NKC)
    return {
        "rows": len(places),
        "channels": truth_NKC.shape[2],
        "covered": float(inside_NKC[known_NKC].mean()),
        **proof(truth_NKC, now_NC, level_NC, threshold),
    }


def silenced(predictor: Predictor, replay: Replay, most: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """For shares of silent sensors: the mean absolute error of the median over the horizon, of those that speak and of
    those that are silent; beside it, for the silent ones, the mean of all that speak (`mean_of_others`)."""
    rng = np.random.default_rng(seed)
    places = some(replay, most)
    channels = replay.past(places[0]).shape[1]
    out = []
    for share in SHARES:
        silent = [rng.permutation(channels) < round(share * channels) for _ in places]
        said = answers(predictor, [replay.row(p, s) for p, s in zip(places, silent, strict=True)])
        errors: dict[str, list[np.ndarray]] = {"speaking": [], "silent": [], "mean_of_others": []}
        for place, silent_C, answer in zip(places, silent, said, strict=True):
            truth_KC = replay.truth(place)
            gap_KC = np.abs(quantiles_of(answer).middle - truth_KC)
            errors["speaking"].append(gap_KC[:, ~silent_C].ravel())
            errors["silent"].append(gap_KC[:, silent_C].ravel())
            others = np.nanmean(_last(replay.past(place))[~silent_C])
            errors["mean_of_others"].append(np.abs(truth_KC[:, silent_C] - others).ravel())
        mean = {name: np.concatenate(parts) for name, parts in errors.items()}
        out.append({"share": share} | {k: float(np.nanmean(v)) if len(v) else None for k, v in mean.items()})
    return out


def _last(past_LC: np.ndarray) -> np.ndarray:
    """(C,) the last known number, NaN where there is none."""
    known_LC = ~np.isnan(past_LC)
    at_C = past_LC.shape[0] - 1 - known_LC[::-1].argmax(axis=0)
    return np.where(known_LC.any(axis=0), past_LC[at_C, np.arange(past_LC.shape[1])], np.nan)
