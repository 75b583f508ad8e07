from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fuseline.errors import FuselineError
from fuseline.lab.encoders import encoder_class
from fuseline.lab.encoders.timeseries import read_adjacency
from fuseline.lab.series import Normalise
from fuseline.modalities import MediaRoot
from fuseline.modalities.timeseries import TimeSeries, TimeSeriesConfig

RNG = np.random.default_rng(4)
CELLS = [RNG.normal([50, 1e6], [5, 1e5], (10, 2)).tolist() for _ in range(20)]


def modality(cells: list[Any] = CELLS, **options: Any) -> TimeSeries:
    return TimeSeries.fit(TimeSeriesConfig(**options), {"x": ""}, [{"x": c} for c in cells], MediaRoot(None))


def arrays(m: TimeSeries, cells: list[Any]) -> dict[str, torch.Tensor]:
    values = [m.parse({"x": c}, MediaRoot(None)) for c in cells]
    return {k: torch.from_numpy(v) for k, v in m.collate(values).items()}


def test_a_rows_scale_leaves_gaps_out_and_is_undone_by_last_and_std():
    cell = [[1.0, None], [None, None], [4.0, None], [None, None]]
    m = modality()
    series = Normalise(m)(*arrays(m, [cell]).values())
    assert series.last_BC[0, 0] == pytest.approx(4.0)
    assert series.mean_BC[0, 0] == pytest.approx(2.5)
    assert series.std_BC[0, 0] == pytest.approx(1.5, rel=1e-3)
    assert series.last_BC[0, 1] == pytest.approx(m.mean[1]), "a channel of gaps has the training rows' mean"
    back = series.own_BLC * series.std_BC[:, None] + series.last_BC[:, None]
    known = series.known_BLC[0, :, 0]
    torch.testing.assert_close(back[0, known, 0], torch.tensor([1.0, 4.0]))
    assert not series.own_BLC[0, ~known].any()


def test_shifting_and_stretching_a_row_changes_its_own_scale_not():
    m = modality()
    first = np.array(CELLS[0])
    own = [Normalise(m)(*arrays(m, [c.tolist()]).values()).own_BLC for c in (first, 3 * first + [20, 1e5])]
    torch.testing.assert_close(own[0], own[1], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("kind", "tokens"), [("small", 2 * 4), ("sensors", 2)])
def test_tokens_are_a_patch_or_a_channel(kind, tokens):
    m = modality()
    cls = encoder_class("timeseries", kind)
    options = {"patch": 3} if kind == "small" else {}
    encoder = cls(cls.Config(width=16, **options), m).eval()
    out = encoder(**arrays(m, CELLS[:3]))
    assert out.values_BTD.shape == (3, tokens, 16)
    assert out.mask_BT.all()
    assert set(out.aside) == {"own_BLC", "table_BLC", "known_BLC", "last_BC", "mean_BC", "std_BC"}


def test_a_patch_depends_on_its_own_steps_alone_without_layers():
    m = modality()
    cls = encoder_class("timeseries", "small")
    encoder = cls(cls.Config(width=16, patch=5, layers=0), m).eval()
    one = np.array(CELLS[0])
    other = one.copy()
    other[:5, 0] = other[4::-1, 0]  # the same numbers in another order: mean, deviation and last stay
    first, second = (encoder(**arrays(m, [c.tolist()])).values_BTD for c in (one, other))
    changed = (first != second).any(dim=2)[0].tolist()
    assert changed == [True, False, False, False]


def test_sensors_see_their_neighbours_and_no_others(tmp_path: Path):
    cells = [RNG.normal(size=(6, 4)).tolist() for _ in range(10)]
    m = modality(cells)
    path = tmp_path / "roads.csv"
    path.write_text("0,1,0,0\n1,0,0,0\n0,0,0,1\n0,0,1,0\n")
    cls = encoder_class("timeseries", "sensors")
    for adjacency, expected in ((str(path), [0, 1]), (None, [0])):
        encoder = cls(cls.Config(width=16, adjacency=adjacency, learned=0), m).eval()
        cell = np.array(cells[0])
        cell[:, 0] = cell[::-1, 0]
        first, second = (encoder(**arrays(m, [c])).values_BTD for c in (cells[0], cell.tolist()))
        assert (first != second).any(dim=2)[0].nonzero()[:, 0].tolist() == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1,2\n3,4\n", "bad_recipe"),
        ("0,x\n", "bad_table"),
        ("0,1\n1\n", "bad_table"),
        ("", "bad_table"),
        ("0,-1,0\n0,0,0\n0,0,nan\n", "bad_recipe"),
    ],
)
def test_an_adjacency_that_does_not_fit_says_why(tmp_path: Path, text: str, code: str):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(FuselineError) as caught:
        read_adjacency(path, 3)
    assert caught.value.code == code
    with pytest.raises(FuselineError) as caught:
        read_adjacency(tmp_path / "none.csv", 3)
    assert caught.value.code == "no_such_file"


def test_an_array_file_with_objects_is_not_opened(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FuselineError) as caught:
        read_adjacency(tmp_path / "a.npy", 1)
    assert caught.value.code == "bad_table"
    np.save(tmp_path / "b.npy", np.eye(3))
    assert read_adjacency(tmp_path / "b.npy", 3).tolist() == np.eye(3).tolist()


def test_too_many_tokens_is_an_error_that_says_what_to_do():
    m = modality([np.zeros((8, 300)).tolist(), np.ones((8, 300)).tolist()])
    cls = encoder_class("timeseries", "small")
    with pytest.raises(FuselineError, match="too many tokens"):
        cls(cls.Config(), m)
