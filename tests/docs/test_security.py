"""What docs/security.md says of all code, looked for in all code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).resolve().parents[2] / "src").rglob("*.py"))
RUN_WHEN_READ = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def dangers(text: str) -> Iterator[str]:
    """Imports of what runs code when it reads data, and reads that would let it."""
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name for name in names if name.partition(".")[0] in RUN_WHEN_READ)
        if not isinstance(node, ast.Call):
            continue
        said = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        if ast.unparse(node.func) == "torch.load" and said.get("weights_only") is not True:
            yield "torch.load without weights_only=True"
        if ast.unparse(node.func) in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
            yield ast.unparse(node.func)
        yield from (key for key in ("allow_pickle", "trust_remote_code") if said.get(key, False) is not False)


def test_no_code_runs_because_data_was_read() -> None:
    found = {str(path): list(dangers(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert len(found) > 100
    assert not {path: what for path, what in found.items() if what}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "torch.load('x')",
        "torch.load('x', weights_only=False)",
        "yaml.load(x, Loader)",
        "np.load('x', allow_pickle=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
    ],
)
def test_it_would_be_found(text: str) -> None:
    assert list(dangers(text))
