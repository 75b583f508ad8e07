"""A package that promises something: through the predictor, files of answers, batches and the protocol's tensors."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import served

from fuseline import api
from fuseline.errors import FuselineError
from fuseline.package import read_package, write_package
from fuseline.recipe import ConformalSpec, dump_recipe
from fuseline.runtime import Answer, Predictor, load
from fuseline.runtime.parts import frame_of
from fuseline.tasks.bins import Bins
from fuseline.tasks.conformal import Conformal, Group
from fuseline.tasks.sure import Abstain, Sure

ROWS = [{"age": 33.0, "sex": "f", "site": "x"}, {"age": 4000.0, "sex": "m"}, {}]


def promising(package: Path, folder: Path, **more: Any) -> Path:
    """The package again, with a sure.json."""
    shutil.copytree(package, folder)
    old = read_package(folder)
    evaluation = old.recipe.evaluation.model_copy(update={"conformal": ConformalSpec(by=("site",))})
    sure = Sure(
        conformal={"": Conformal(0.9, "lac", [Group(("vitals",), None, 99, np.array([2.0]))])},
        abstain={"": Abstain(0.1, 0.95, ((None, {"threshold": None}), (("vitals",), {"threshold": 0.0})))},
        by=[Bins.fit("site", ["x", "y"])],
        odd={"vitals": {"rows": 3, "quantiles": [0.1, 0.2, 3.0]}},
    )
    write_package(
        folder,
        name=old.name,
        recipe_yaml=dump_recipe(old.recipe.model_copy(update={"evaluation": evaluation})),
        columns=old.columns,
        task=old.task,
        extra={"sure.json": {**sure.to_dict(), **more}},
        card="",
        fuseline_version="0",
    )
    return folder


@pytest.fixture(scope="module")
def predictor(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load(promising(package, tmp_path_factory.mktemp("sure") / "clinic.fuse"))


def test_answers_carry_what_is_promised(predictor: Predictor) -> None:
    known, far, nothing = predictor.predict(ROWS)
    assert set(known.set or ()) == {"no", "yes"}
    assert (known.abstained, known.suggestion) == (False, None)
    assert known.value is not None
    assert known.odd is not None
    assert not any("not read" in note for note in known.notes)  # `site` is read, for the sets
    assert far.odd == {"vitals": 1.0}
    assert "vitals is unlike the training rows: odder than all 3 held-out ones" in far.notes
    assert (nothing.value, nothing.abstained) == (None, True)
    assert nothing.suggestion in ("no", "yes")
    assert any("no guarantee" in note for note in nothing.notes)
    for answer in (known, far, nothing):
        assert Answer.from_dict(json.loads(json.dumps(answer.to_dict()))) == answer


def test_a_package_without_it_answers_as_before(package: Path) -> None:
    for answer in load(package).predict(ROWS):
        assert not {"set", "abstained", "suggestion", "odd"} & answer.to_dict().keys()
        assert answer.value is not None


@pytest.mark.parametrize("change", [{"format": 2}, {"conformal": {"": {}}}, {"by": 3}, {"abstain": None}])
def test_what_nobody_understands_is_refused(package: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(FuselineError, match=r"sure\.json cannot be read") as caught:
        load(promising(package, tmp_path / "clinic.fuse", **change))
    assert caught.value.code == "bad_package"


def test_files_of_answers_and_parts_say_it(predictor: Predictor, tmp_path: Path) -> None:
    table = pl.DataFrame({"age": [33.0, None], "site": ["x", None]})
    others = [c for c in predictor.names if c != "vitals"]
    counts = api.predict(predictor, table, tmp_path / "a.csv", absent=[*others, "sex", "smoker", "seen"], quiet=True)
    assert counts == {"rows": 2, "errors": 0, "abstained": 1}
    with (tmp_path / "a.csv").open(encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert json.loads(first["set"])
    assert (second["value"], second["abstained"]) == ("", "true")
    assert second["suggestion"] in ("no", "yes")
    frame = frame_of(predictor.task, 0, predictor.predict(ROWS), sure=True)
    assert frame["abstained"].to_list() == [False, False, True]
    assert frame["suggestion"][2] in ("no", "yes")
    assert "abstained" not in frame_of(predictor.task, 0, [Answer("no")]).columns


def test_the_protocols_tensors_say_it(predictor: Predictor) -> None:
    from fuseline.serve.describe import describe
    from fuseline.serve.v2.tensors import InferRequest, tensors_of

    info = describe(predictor, None)
    answers = predictor.predict(ROWS)
    request = InferRequest.__new__(InferRequest)
    object.__setattr__(request, "outputs", [])
    found = {t.name: list(t.data) for t in tensors_of(answers, info, request)}
    assert found["abstained"] == ["false", "false", "true"]
    assert found["value"][2] == ""
    assert json.loads(found["suggestion"][2]) in ("no", "yes")
    assert served.rows(1)  # the same columns as every other test of serving
