"""Each kind is built once a file, by pytest's grouping of module parameters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from conformance.subjects import Case, Subject, missing_package


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """The model of one case; parametrise it indirectly with cases."""
    case: Case = request.param
    lacking = missing_package(case)
    if lacking:
        pytest.skip(f"{lacking} is not installed: pip install 'fuseline[offline]'")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Subject(case, tmp_path_factory.mktemp(case.name))
    torch.set_num_threads(threads)
