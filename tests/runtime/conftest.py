"""A package with a graph for every backend: converted once."""

from __future__ import annotations

from pathlib import Path

import pytest
from runtime.graphs import with_openvino


@pytest.fixture(scope="session")
def both(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`package` with graphs for onnxruntime and openvino. Read only: copy it to change it."""
    return with_openvino(package, tmp_path_factory.mktemp("both") / "clinic.fuse")


@pytest.fixture(scope="session")
def compiled(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`package` with a graph for openvino only, and its compiled cache. Read only: copy it to change it."""
    return with_openvino(package, tmp_path_factory.mktemp("compiled") / "clinic.fuse", onnx=False, blob=True)
