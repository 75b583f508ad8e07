"""What the base install is: importable, small, and free of every training library."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = ("torch", "transformers", "pytorch_lightning", "peft", "sklearn", "matplotlib", "tensorboard", "onnx")
HEAVY = (*TRAINING, "pandas", "pyarrow", "onnxruntime", "polars", "PIL", "soundfile", "scipy")
ROOMS = ("cli", "runtime", "package", "modalities", "tasks", "data", "demo", "recipe", "errors", "api")


def fresh(code: str) -> str:
    """Run code in a new interpreter; its standard output."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", TRAINING)
def test_no_training_library_is_there(module: str) -> None:
    assert importlib.util.find_spec(module) is None, f"the base install must not bring {module}"


def test_importing_torch_fails() -> None:
    with pytest.raises(ModuleNotFoundError):
        import torch  # noqa: F401


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_without_torch(room: str) -> None:
    fresh(f"import fuseline.{room}")


def test_import_loads_nothing_heavy() -> None:
    loaded = json.loads(fresh("import fuseline, json, sys; print(json.dumps(sorted(sys.modules)))"))
    assert {m.partition(".")[0] for m in loaded} & set(HEAVY) == set()


ESTIMATORS = {"FusionClassifier", "FusionRegressor"}  # they subclass scikit-learn's, which the train extra brings


def test_public_names_resolve() -> None:
    import fuseline

    for name in set(fuseline.__all__) - ESTIMATORS:
        assert getattr(fuseline, name) is not None


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_estimators_say_which_extra_they_need(name: str) -> None:
    import fuseline

    with pytest.raises(fuseline.FuselineError, match=r"fuseline\[train\]"):
        getattr(fuseline, name)


def test_the_program_starts_and_teaches() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from fuseline.cli import main; main()", "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout


def test_training_says_which_extra_is_missing(tmp_path: Path) -> None:
    import fuseline

    table = tmp_path / "table.csv"
    table.write_text("a,y\n1,p\n2,q\n")
    with pytest.raises(fuseline.FuselineError, match=r"fuseline\[train\]") as caught:
        fuseline.train(table, target="y", out=tmp_path / "run")
    assert caught.value.code == "missing_extra"
    assert not (tmp_path / "run").exists()


def test_the_demo_clinic_is_made_without_torch(tmp_path: Path) -> None:
    from fuseline.demo import generate

    assert len(generate(tmp_path / "clinic", rows=12).labels) == 12


TOOLS = {"pip", "setuptools", "wheel", "pytest", "pytest-timeout", "pluggy", "iniconfig"}


def test_dependencies_are_small() -> None:
    """The base install with all its dependencies unpacks to less than 400 MB, byte-code caches aside."""
    total = 0
    for distribution in importlib.metadata.distributions():
        if distribution.metadata["Name"].lower() not in TOOLS:
            paths = [Path(str(f.locate())) for f in distribution.files or () if f.suffix != ".pyc"]
            total += sum(p.stat().st_size for p in paths if p.is_file())
    assert 100e6 < total < 400e6


def test_the_version_is_the_package_version() -> None:
    import fuseline

    assert importlib.metadata.version("fuseline") == fuseline.__version__
