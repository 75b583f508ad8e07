"""Checks that every encoder's tests share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.tokens import Tokens

Arrays = dict[str, Tensor]
BATCH = torch.export.Dim("B", min=1, max=512)


def _export(encoder: Encoder, arrays: Arrays, dims: dict[str, dict[int, Any]]) -> Callable[[Arrays], Tokens]:
    """The graph as a function. `arrays`: an example of batch 3. `dims`: array -> axis -> Dim, without the batch."""
    dynamic = {key: {0: BATCH, **dims.get(key, {})} for key in arrays}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            encoder.eval(), (), kwargs=arrays, dynamo=True, dynamic_shapes=dynamic, verbose=False,
            input_names=list(arrays), output_names=["values", "values_mask"],
        )  # fmt: skip
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)

    def run(arrays: Arrays) -> Tokens:
        values, mask = session.run(None, {key: value.numpy() for key, value in arrays.items()})
        return Tokens(torch.from_numpy(values), torch.from_numpy(mask))

    return run


@pytest.fixture
def export() -> Callable[..., Callable[[Arrays], Tokens]]:
    return _export


@pytest.fixture
def same_tokens() -> Callable[[Tokens, Tokens, float], None]:
    """Equal masks, and equal values wherever a token is real."""

    def check(a: Tokens, b: Tokens, atol: float) -> None:
        assert torch.equal(a.mask_BT, b.mask_BT)
        assert a.mask_BT.any(dim=1).all()
        assert torch.isfinite(a.values_BTD).all()
        torch.testing.assert_close(a.values_BTD[a.mask_BT], b.values_BTD[b.mask_BT], atol=atol, rtol=0)

    return check


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
