"""The model server of an example ends with it, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import signal, sys
from pathlib import Path
from examples.stages import ask, model_server

with model_server({"clinic": Path(sys.argv[1])}, Path(sys.argv[2]), port=int(sys.argv[3])) as url:
    print(ask(url, "clinic", [{"note": "no fever"}])[0]["used"], flush=True)
    signal.pause()
"""


def open_ports(port: int) -> bool:
    with socket.socket() as door:
        return door.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_with_the_program(package: Path, tmp_path: Path, number: signal.Signals) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(package), str(tmp_path), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "['note']\n", program.communicate()[1]
        assert open_ports(port)
        program.send_signal(number)
        program.wait(timeout=60)
    until = time.monotonic() + 20
    while open_ports(port) and time.monotonic() < until:
        time.sleep(0.1)
    assert not open_ports(port), "the model server was left behind"
