"""Digests that tell whether two encoders would give the same tokens, and whether two cells are the same to them.

Tokens are a function of the arrays that an encoder is given and of the encoder. The arrays are digested as they are,
behind decoding, resizing and tokenising: whatever changes there changes them. Of the encoder everything that its tokens
may depend on is digested: weights, buffers, options, plain attributes of every part, its configuration, our code's
files, the libraries that compute, and the processor's instruction set.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

import fuseline

LIBRARIES = ("torch", "transformers", "numpy")
CODE = ("modalities", "data", "lab/encoders", "lab/series.py", "lab/tokens.py", "lab/training/encode.py")
"""of the package: a change to any of these files makes all tokens anew"""
_NOT_OURS = ("_name_or_path", "transformers_version")
"""of a transformers configuration: says nothing of the computation"""


def encoder_digest(encoder: nn.Module, options: str) -> str:
    """Of one encoder on this machine. `options`: what its recipe and its input's fitted state say, as text."""
    digest = hashlib.sha256(f"{environment()}\n{options}\n".encode())
    for name, part in encoder.named_modules():
        digest.update(f"{name}: {type(part).__module__}.{type(part).__qualname__} {part.extra_repr()}\n".encode())
        for key, value in sorted(vars(part).items()):
            if not key.startswith("_") and key != "training":
                digest.update(f"{key}={_text(value)}\n".encode())
    # Buffers that are not saved matter as well: means and deviations of pixels, mel filters.
    for kind in (encoder.named_parameters(), encoder.named_buffers()):
        for name, tensor in kind:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Of what an encoder is given for one cell."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data if array.size else b"")
    return digest.digest()


def is_frozen(encoder: nn.Module) -> bool:
    """Whether its tokens can be a cell's for good: nothing of it trains, no part is in train mode (dropout)."""
    return not any(p.requires_grad for p in encoder.parameters()) and not any(m.training for m in encoder.modules())


@functools.lru_cache(maxsize=1)
def _versions() -> str:
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    root = Path(fuseline.__file__).parent
    code = hashlib.sha256()
    for name in CODE:
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            code.update(f"{path.relative_to(root).as_posix()}\n".encode())
            code.update(path.read_bytes())
    return f"{fuseline.__version__} {code.hexdigest()} {versions}"


def environment() -> str:
    """What computes: versions, code, instruction set, settings. Not the number of threads: see Reader."""
    cpu = torch.backends.cpu.get_cpu_capability()
    settings = (torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled)
    return f"{_versions()} {platform.machine()} {cpu} {settings}"


def _bytes(tensor: torch.Tensor) -> memoryview | bytes:
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    array = dense.cpu().contiguous().flatten().view(torch.uint8).numpy()
    return array.data if array.size else b""


def _text(value: Any) -> str:
    """A value as text that is the same in every process, and another where the value is another."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return repr(value)
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(_bytes(value)).hexdigest()}"
    if isinstance(value, np.ndarray):
        return arrays_digest({"": value}).hex()
    if isinstance(value, BaseModel):
        return _text(value.model_dump())
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {_text(value[k])}" for k in sorted(value, key=repr)) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(_text, value))) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_text, value)) + "]"
    if hasattr(value, "to_dict") and hasattr(value, "model_type"):  # a transformers configuration
        return _text({k: v for k, v in value.to_dict().items() if k not in _NOT_OURS})
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    return str(getattr(value, "__qualname__", type(value).__qualname__))
