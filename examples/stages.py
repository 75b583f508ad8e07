"""What the three systems share: their command, stages that a second start does not do again, and a model server beside
the page."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

import fuseline
from fuseline.errors import FuselineError

START_SECONDS = 120.0
ANSWER_SECONDS = 30.0


def command_of(
    name: str, about: str, *, data: str, port: int, trainings: str = "both trainings"
) -> argparse.ArgumentParser:
    """The arguments that every system has; the model server listens on the port behind the page's."""
    parser = argparse.ArgumentParser(
        prog=f"python -m examples.{name}",
        description=f"{about} Stages that are done are not done again: start it with the same --out to go on.",
    )
    parser.add_argument("--out", type=Path, default=Path("build") / name, help="the system's folder")
    parser.add_argument("--data", type=Path, help=data)
    parser.add_argument("--epochs", type=int, help=f"of {trainings}; default: the recipes' own")
    parser.add_argument("--port", type=int, default=port, help="of the page")
    parser.add_argument("--model-port", type=int, default=port + 1, help="of the model server")
    parser.add_argument("--no-serve", action="store_true", help="end when all is trained and measured")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


@contextlib.contextmanager
def ended_in_words(folder: Path) -> Iterator[None]:
    """No traceback for what the user can mend, nor for Ctrl-C."""
    try:
        yield
    except FuselineError as error:
        raise SystemExit(f"{error}") from None
    except KeyboardInterrupt:
        raise SystemExit(f"stopped; the same command with --out {folder} goes on") from None


class Stages:
    """The stages of a folder: each is done once, its result is kept, and an interrupted one begins again."""

    def __init__(self, folder: Path, *, say: Callable[[str], None] = print) -> None:
        self.folder, self.say = folder, say
        folder.mkdir(parents=True, exist_ok=True)

    def do(self, name: str, make: Callable[[], Any]) -> Any:
        """`make`'s result, which must be JSON; read from the folder where the stage has ended before."""
        path = self.folder / f"{name}.json"
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            self.say(f"{name}: done before, in {kept['seconds']} s")
            return kept["result"]
        self.say(f"{name} ...")
        clock = time.monotonic()
        result = make()
        seconds = round(time.monotonic() - clock, 1)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"seconds": seconds, "result": result}, indent=1), encoding="utf-8")
        new.replace(path)  # a kill leaves the whole or nothing
        self.say(f"{name}: {seconds} s")
        return result


def trained(recipe: Callable[[], Any], out: Path, *, quiet: bool) -> fuseline.Run:
    """The run in `out`; one that was stopped on the way goes on with what it has."""
    if (out / "run.json").exists():
        return fuseline.resume(out, quiet=quiet)
    return fuseline.train(recipe(), out=out, quiet=quiet)


def watch_files(folder: Path, name: str, rules: Path, *, model_port: int, port: int) -> list[str]:
    """FOLDER/monitoring: the stack of `fuseline monitor init` for the model server, with the system's own rules
    (`rules`/NAME.yml and NAME_test.yml) and figures (http://127.0.0.1:port/metrics) in it. Its files.

    Raises FuselineError ``internal`` where `fuseline monitor init` fails.
    """
    target = folder / "monitoring"
    command = [sys.executable, "-m", "fuseline", "monitor", "init", "-o", str(target), "--force"]
    command += ["--target", f"127.0.0.1:{model_port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FuselineError("internal", f"fuseline monitor init failed: {done.stderr.strip()[-500:]}", "")
    for file, place in ((f"{name}.yml", "rules"), (f"{name}_test.yml", "tests")):
        (target / place / file).write_bytes((rules / file).read_bytes())
    settings = yaml.safe_load((target / "prometheus.yml").read_text(encoding="utf-8"))
    settings["rule_files"].append(f"rules/{name}.yml")
    settings["scrape_configs"].append({"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]})
    (target / "prometheus.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())


@contextlib.contextmanager
def model_server(packages: dict[str, Path], folder: Path, *options: str, port: int) -> Iterator[str]:
    """`fuseline serve` of packages by name, in a process of its own; its address. It ends with the block.

    Raises FuselineError ``not_ready`` with the end of its log where it does not start.
    """
    log = folder / "server.log"
    models = [f"{name}={path}" for name, path in packages.items()]
    command = [sys.executable, "-m", "fuseline", "serve", *models, "--port", str(port), *options]
    # A SIGTERM would end this process at once, and leave the server behind.
    before = signal.signal(signal.SIGTERM, _leave)
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            url = f"http://127.0.0.1:{port}"
            _await(url + "/readyz", process, log)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.2)
    end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise FuselineError("not_ready", f"the model server did not start: {end}", f"all of its log is in {log}")


def ask(url: str, model: str, rows: Sequence[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """Answers of a model that is served. Raises FuselineError with the server's own code and words."""
    answers: list[dict[str, Any]] = post(f"{url}/v1/models/{model}/predict", {"rows": list(rows), **more})["answers"]
    return answers


def post(url: str, body: dict[str, Any], *, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
    """JSON to JSON. Raises FuselineError with the server's own code and words, or ``not_ready``."""
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"content-type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        raise FuselineError(*_told(error)) from None
    except (OSError, ValueError) as error:
        raise FuselineError("not_ready", f"the model server gave no answer: {error}", "is it up?") from None


def _told(error: urllib.error.HTTPError) -> tuple[str, str, str]:
    """Code, message and hint of a refusal; of one that a proxy wrote, what there is."""
    try:
        told = json.loads(error.read() or b"{}")
    except (OSError, ValueError):
        told = {}
    if not isinstance(told, dict):
        told = {}
    return str(told.get("code", "internal")), str(told.get("error", error)), str(told.get("hint", ""))
