from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from fuseline.errors import FuselineError
from fuseline.lab.encoders.hub import load_backbone, locate, preprocessor

sys.path.insert(0, str(Path(__file__).parent))
from tiny import make_tiny


def _refused(source: str | Path, words: str) -> None:
    with pytest.raises(FuselineError, match=words) as caught:
        load_backbone(source)
    assert caught.value.code == "cannot_load_weights"
    assert caught.value.hint


def test_a_folder_loads_with_its_own_weights(tmp_path: Path) -> None:
    loaded = load_backbone(make_tiny("bert", tmp_path))
    assert not loaded.model.training
    file = load_file(tmp_path / "model.safetensors")
    key = "encoder.layer.1.output.dense.weight"
    assert torch.equal(loaded.model.state_dict()[key], file[key])


def test_half_precision_files_load_as_float32(tmp_path: Path) -> None:
    file = make_tiny("bert", tmp_path) / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(file).items()}, file, metadata={"format": "pt"})
    assert {p.dtype for p in load_backbone(tmp_path).model.parameters()} == {torch.float32}


@pytest.mark.parametrize("source", ["./nowhere", "/no/such/folder", "~/no-such-folder-here"])
def test_a_missing_folder(source: str) -> None:
    _refused(source, "no folder at")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    _refused(tmp_path, "no config.json")


def test_a_broken_or_foreign_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{not json")
    _refused(tmp_path, "config.json cannot be used")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nobody-knows-me"}))
    _refused(tmp_path, "config.json cannot be used")


def test_code_of_the_folder_never_runs(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    own = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    _refused(tmp_path, "config.json cannot be used")


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    make_tiny("bert", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    _refused(tmp_path, "only pickled weights")


def test_no_weights_and_damaged_weights(tmp_path: Path) -> None:
    file = make_tiny("bert", tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    _refused(tmp_path, "cannot be read")
    file.unlink()
    _refused(tmp_path, "no safetensors weights")


def test_weights_of_another_model_are_not_left_random(tmp_path: Path) -> None:
    make_tiny("bert", tmp_path / "bert")
    make_tiny("vit", tmp_path / "vit")
    (tmp_path / "vit" / "model.safetensors").replace(tmp_path / "bert" / "model.safetensors")
    _refused(tmp_path / "bert", "lacks .* of the model's weights")


def test_a_missing_pooler_is_no_fault(tmp_path: Path) -> None:
    file = make_tiny("bert", tmp_path) / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "pooler" not in k}, file, metadata={"format": "pt"})
    load_backbone(tmp_path)


def test_offline_fails_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    started = time.monotonic()
    _refused("some-org/some-model-that-is-not-cached", "the hub does not give it")
    assert time.monotonic() - started < 3


def test_no_network_fails_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    started = time.monotonic()
    _refused("some-org/some-model-that-is-not-cached", "the hub does not give it")
    assert time.monotonic() - started < 10


def test_an_id_that_cannot_be_one() -> None:
    _refused("not an id!", "the hub does not give it")


def test_preprocessor_of_a_newer_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"image_mean": [0, 0, 0]}}))
    assert preprocessor(locate(str(tmp_path))) == {"image_mean": [0, 0, 0]}
