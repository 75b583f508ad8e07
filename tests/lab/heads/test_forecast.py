from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fuseline.lab.encoders.timeseries import SmallTimeSeries, SmallTimeSeriesConfig
from fuseline.lab.heads import head_class
from fuseline.lab.tokens import Fused, View
from fuseline.modalities import MediaRoot
from fuseline.modalities.timeseries import TimeSeries, TimeSeriesConfig
from fuseline.tasks.forecast import Forecast, ForecastConfig

WIDTH, STEPS = 16, 3
RNG = np.random.default_rng(1)
PAST = RNG.normal([40, 5], [8, 2], (12, 6, 2)).tolist()
NEXT = RNG.normal([40, 5], [8, 2], (12, STEPS, 2)).tolist()
AHEAD = RNG.normal(size=(12, STEPS)).tolist()


def series(column: str, cells: list[Any]) -> TimeSeries:
    return TimeSeries.fit(TimeSeriesConfig(), {column: ""}, [{column: c} for c in cells], MediaRoot(None))


INPUTS = {"past": series("x", PAST), "rain": series("rain@next", AHEAD)}


def made(inputs: dict[str, TimeSeries] = INPUTS, **options: Any) -> tuple[Forecast, Any]:
    task = Forecast.fit(ForecastConfig(target="x@next", **options), {"x@next": NEXT})
    task.check(inputs)
    torch.manual_seed(0)
    return task, head_class("forecast")(task, inputs, width=WIDTH, dropout=0.0).eval()


def view(past: list[Any], ahead: list[Any], present: list[list[bool]] | None = None) -> tuple[Fused, View]:
    torch.manual_seed(5)
    tokens = {}
    for (name, m), cells in zip(INPUTS.items(), (past, ahead), strict=True):
        encoder = SmallTimeSeries(SmallTimeSeriesConfig(width=WIDTH, layers=0), m).eval()
        arrays = m.collate([m.parse({m.columns[0]: c}, MediaRoot(None)) for c in cells])
        tokens[name] = encoder(**{k: torch.from_numpy(v) for k, v in arrays.items()})
    rows = len(past)
    fused = Fused(torch.randn(rows, WIDTH) * 0.1, torch.zeros(rows, 1, WIDTH), torch.ones(rows, 1, dtype=torch.bool))
    present_BM = torch.tensor(present or [[True, True]] * rows)
    return fused, View(tokens, present_BM, lambda p: fused)


@torch.no_grad()
def test_quantiles_never_cross_and_start_around_the_last_number():
    task, head = made(quantiles=[0.05, 0.1, 0.5, 0.9])
    out = head(*view(PAST[:4], AHEAD[:4]))
    assert out["forecast"].shape == (4, STEPS, 2, 4)
    assert (out["forecast"].diff(dim=-1) > 0).all()
    last = torch.tensor([c[-1] for c in PAST[:4]])
    torch.testing.assert_close(out["naive"], last[:, None].expand(-1, STEPS, -1), rtol=1e-4, atol=1e-3)
    middle = out["forecast"][..., task.middle]
    assert (middle - out["naive"]).abs().max() < 0.5 * max(task.std)


@torch.no_grad()
def test_the_season_before_is_found_and_gaps_fall_back_to_the_last_number():
    _, head = made(season=4)
    past = [[list(step) for step in PAST[0]]]
    past[0][3][1] = None
    out = head(*view(past, AHEAD[:1]))["seasonal"][0]
    wanted = torch.tensor([PAST[0][2][0], PAST[0][3][0], PAST[0][4][0]])
    torch.testing.assert_close(out[:, 0], wanted, rtol=1e-4, atol=1e-3)
    assert out[1, 1] == pytest.approx(PAST[0][-1][1], rel=1e-3)
    _, longer = made(season=50)
    torch.testing.assert_close(*(longer(*view(PAST[:2], AHEAD[:2]))[k] for k in ("seasonal", "naive")))


@torch.no_grad()
def test_without_a_past_the_training_rows_stand_in():
    task, head = made()
    both, lacking = (head(*view(PAST[:2], AHEAD[:2], p)) for p in ([[True, True]] * 2, [[False, True], [True, True]]))
    torch.testing.assert_close(lacking["naive"][0], torch.tensor(task.mean).float().expand(STEPS, -1))
    torch.testing.assert_close(lacking["forecast"][1], both["forecast"][1])
    assert not torch.allclose(lacking["forecast"][0], both["forecast"][0])


@torch.no_grad()
def test_a_step_known_ahead_moves_its_own_step_only():
    _, head = made()
    other = [list(AHEAD[0])]
    other[0][1] += 3.0
    first, second = (head(*view(PAST[:1], ahead))["forecast"] for ahead in (AHEAD[:1], other))
    moved = (first - second).abs().amax(dim=(0, 2, 3)) > 1e-6
    assert moved.tolist() == [False, True, False]


def test_loss_is_twice_the_pinball_and_leaves_gaps_out():
    task, head = made()
    out = {"forecast": torch.randn(3, STEPS, 2, 3)}
    targets = torch.randn(3, STEPS, 2)
    targets[0, 0, 0] = torch.nan
    std = torch.tensor(task.std)
    quantiles = torch.tensor([0.1, 0.5, 0.9])
    error = (targets[..., None] - out["forecast"]) / std[:, None]
    each = 2 * torch.where(error > 0, quantiles * error, (quantiles - 1) * error).mean(-1)
    torch.testing.assert_close(head.loss(out, targets), each[~targets.isnan()].mean(), rtol=1e-5, atol=1e-6)
    assert head.loss(out, torch.full_like(targets, torch.nan)) == 0


def test_it_learns_a_series_that_repeats():
    generator = np.random.default_rng(0)
    start = generator.integers(0, 4, 300)
    wave = np.array([0.0, 3.0, 10.0, 4.0])
    past = [[[wave[(s + i) % 4], 1.0] for i in range(6)] for s in start]
    truth = torch.tensor([[[wave[(s + 6 + i) % 4], 1.0] for i in range(STEPS)] for s in start]).float()
    _, head = made()
    with torch.no_grad():
        given = view(past, [AHEAD[0]] * 300)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        head.loss(head(*given), truth).backward()
        optimiser.step()
    error = (head(*given)["forecast"][..., 0, 1] - truth[..., 0]).abs().mean()
    assert error < 0.5, "the naive forecast is off by 5"
