"""A real Prometheus and a real Alertmanager, with every window shortened a hundredfold: what is broken is told, only
what is broken is told, and it ends when it is mended. All scenarios run at once, each with its own model."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from prometheus_client import CollectorRegistry, start_http_server

from fuseline.monitor.metrics import Metrics
from fuseline.monitor.rules import ALERTS, Options, texts
from fuseline.monitor.rules.dashboard import dashboard

SCALE = 0.01
PER_SECOND = 20
"""requests of every model"""
FLOOD = 500
"""times as many dilute the past once all is mended: nobody waits for a scaled window of three days"""

Phase = Literal["healthy", "broken", "mended"]
Fired = tuple[str, str]
"""alert, and the model (or the server) it is of"""

EXPECTED: dict[str, set[str]] = {
    "fine": set(),
    "failing": {
        "FuselineErrorBudgetFast",
        "FuselineErrorBudgetSlow",
        "FuselineErrorBudgetLeak",
        "FuselineErrorShare",
    },
    "ailing": {"FuselineErrorBudgetSlow", "FuselineErrorBudgetLeak"},
    "leaking": {"FuselineErrorBudgetLeak"},
    "misused": {"FuselineErrorShare"},
    "slow": {"FuselineLatencyBudgetFast", "FuselineLatencyBudgetSlow", "FuselineLatencyBudgetLeak"},
    "slower": {"FuselineLatencyBudgetSlow", "FuselineLatencyBudgetLeak"},
    "sluggish": {"FuselineLatencyBudgetLeak"},
    "odd-rows": {"FuselineRowErrors"},
    "broken-scans": {"FuselineDecodeFailures"},
    "full": {"FuselineQueueSaturated"},
    "unready": {"FuselineNotReady"},
    "drifting": {"FuselineDrift"},
    "noteless": {"FuselineAbsentShare"},
    "wrong": {"FuselineAccuracyDrop"},
    "main": {"FuselineWorkerRestarts"},
    "second": {"FuselineInstanceDown"},
}
SILENCED = {
    ("FuselineErrorBudgetLeak", "failing"),
    ("FuselineErrorShare", "failing"),
    ("FuselineErrorBudgetLeak", "ailing"),
    ("FuselineLatencyBudgetLeak", "slow"),
    ("FuselineLatencyBudgetLeak", "slower"),
}
"""warnings of which a critical alert of the same model and area says enough"""

FAILING = {"failing": 0.25, "ailing": 0.055, "leaking": 0.015}
SLOW = {"slow": 0.25, "slower": 0.055, "sluggish": 0.015}


class Load:
    """Drives the real observer's own metrics, by the clock."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.phase: Phase = "healthy"
        self._owed: dict[tuple[str, float], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.advance(0)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(0.1):
            now = time.monotonic()
            self.advance(now - last)
            last = now

    def advance(self, seconds: float) -> None:
        m, bad = self.metrics, self.phase == "broken"
        n = seconds * PER_SECOND * (FLOOD if self.phase == "mended" else 1)
        for model in EXPECTED:
            failing = FAILING.get(model, 0) if bad else 0
            misused = 0.5 if bad and model == "misused" else 0
            for code, share in (("internal", failing), ("bad_rows", misused), ("ok", 1 - failing - misused)):
                m.requests.labels(model, "v", "rest", code).inc(n * share)
            late = SLOW.get(model, 0) if bad else 0
            timed = n if model in SLOW else seconds  # observing costs this process its time
            self._observe(model, 2.0, timed * late)
            self._observe(model, 0.02, timed * (1 - late))
            odd = 0.2 if bad and model == "odd-rows" else 0
            broken = 0.08 if bad and model == "broken-scans" else 0
            m.rows.labels(model, "v", "error").inc(n * (odd + broken))
            m.rows.labels(model, "v", "ok").inc(n * (1 - odd - broken))
            m.decode_errors.labels(model, "scan").inc(n * broken)
            absent = 0.8 if bad and model == "noteless" else 0.2
            m.input_rows.labels(model, "note", "absent").inc(n * absent)
            m.input_rows.labels(model, "note", "present").inc(n * (1 - absent))
            m.reference_absent.labels(model, "note").set(0.2)
            m.queue_limit_rows.labels(model).set(256)
            m.waiting_rows.labels(model).set(240 if bad and model == "full" else 20)
            m.ready.labels(model).set(0 if bad and model == "unready" else 1)
            m.drift_alarm.labels(model, "age").set(bad and model == "drifting")
            m.live_accuracy.labels(model).set(0.3 if bad and model == "wrong" else 0.95)
            m.queue_seconds.labels(model).observe(0.001)
            m.compute_seconds.labels(model).observe(0.01)
            m.batch_rows.labels(model).observe(4)
            m.predictions.labels(model, "v", "yes").inc(n)
            m.values.open(model, (1, 2, 3))
            m.values.observe(model, 2.5)
            m.drift_score.labels(model, "age", "ks").set(0.1)
            m.drift_rows.labels(model).set(2000)
            m.model_info.labels(model, "v", "classification", "0").set(1)
            m.workers.set(2)
        m.requests.labels("other", "other", "rest", "unknown_model").inc(n)  # a scanner: nobody's alert
        m.requests.labels("fine", "v", "shadow", "internal").inc(n)
        m.restarts.inc(2 * seconds if bad else 0)

    def _observe(self, model: str, took: float, n: float) -> None:
        owed = self._owed.get((model, took), 0) + n
        for _ in range(int(owed)):
            self.metrics.request_seconds.labels(model, "rest").observe(took)
        self._owed[model, took] = owed - int(owed)


@contextmanager
def exporter(registry: CollectorRegistry, port: int = 0) -> Iterator[int]:
    server, thread = start_http_server(port, "127.0.0.1", registry)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook, and what was posted to it."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", posted
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def started(words: Callable[[int], list[str]], ready: str, log: Path) -> Iterator[int]:
    """A program on a free loopback port; it ends with the block, and with this process however that ends."""
    guard = shutil.which("setpriv")
    for _ in range(3):  # somebody else may take the port in between
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        guarded = [guard, "--pdeathsig", "KILL", *words(port)] if guard else words(port)
        with log.open("wb") as out:
            process = subprocess.Popen(guarded, stdout=out, stderr=out)
        try:
            if up(process, f"http://127.0.0.1:{port}{ready}"):
                yield port
                return
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    raise AssertionError(log.read_text())


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.load(reply)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def up(process: subprocess.Popen[bytes], url: str) -> bool:
    return wait(lambda: process.poll() is not None or answers(url), 30) and process.poll() is None


def wait(done: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (held := done()) and time.monotonic() < end:
        time.sleep(0.2)
    return held


def test_every_alert_fires_where_it_should_and_nowhere_else(tmp_path: Path, program: Callable[..., str]) -> None:
    prometheus, alertmanager = program("prometheus"), program("alertmanager", "prometheus-alertmanager")
    expected = {(alert, owner) for owner, alerts in EXPECTED.items() for alert in alerts}
    assert {alert for alert, _ in expected} == {alert.name for alert in ALERTS}, "an alert without a scenario"
    with ExitStack() as stack:
        load = stack.enter_context(Load())
        main = stack.enter_context(exporter(load.metrics.registry))
        second = stack.enter_context(ExitStack())
        spare = second.enter_context(exporter(CollectorRegistry()))
        hook, posted = stack.enter_context(receiver())
        names = {f"127.0.0.1:{main}": "main", f"127.0.0.1:{spare}": "second"}

        def write(port: int) -> None:
            options = Options(
                targets=tuple(names),
                alertmanager=f"127.0.0.1:{port}",
                webhook=hook,
                time_scale=SCALE,
                scrape_seconds=0.5 / SCALE,
            )
            for name, text in texts(options).items():
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).write_text(text)

        def manager_words(port: int) -> list[str]:
            write(port)
            return [
                alertmanager,
                f"--config.file={tmp_path / 'alertmanager.yml'}",
                f"--storage.path={tmp_path / 'am'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ]

        def prometheus_words(port: int) -> list[str]:
            return [
                prometheus,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'db'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--rules.alert.resend-delay=1s",
            ]

        am = stack.enter_context(started(manager_words, "/-/ready", tmp_path / "alertmanager.log"))
        prom = stack.enter_context(started(prometheus_words, "/-/ready", tmp_path / "prometheus.log"))

        def query(promql: str) -> list[dict[str, Any]]:
            words = urllib.parse.urlencode({"query": promql})
            found: list[dict[str, Any]] = get(f"http://127.0.0.1:{prom}/api/v1/query?{words}")["data"]["result"]
            return found

        def owner(labels: dict[str, str]) -> Fired:
            return labels["alertname"], labels.get("model") or names[labels["instance"]]

        def firing() -> set[Fired]:
            alerts = get(f"http://127.0.0.1:{prom}/api/v1/alerts")["data"]["alerts"]
            return {owner(a["labels"]) for a in alerts if a["state"] == "firing"}

        def known(state: str) -> set[Fired]:
            alerts = get(f"http://127.0.0.1:{am}/api/v2/alerts")
            return {owner(a["labels"]) for a in alerts if a["status"]["state"] == state}

        def told(status: str, level: str) -> set[Fired]:
            of_level = [a for p in list(posted) if p["receiver"] == level for a in p["alerts"]]
            return {owner(a["labels"]) for a in of_level if a["status"] == status}

        def scrapes() -> float:
            found = query('count_over_time(fuseline_ready{model="fine"}[1m])')
            return float(found[0]["value"][1]) if found else 0

        assert wait(lambda: scrapes() >= 12, 30)  # six healthy seconds
        assert firing() == set()
        load.phase = "broken"
        second.close()
        assert wait(lambda: firing() == expected, 60), (firing() ^ expected, "broken")
        assert wait(lambda: known("suppressed") == SILENCED, 15), known("suppressed") ^ SILENCED
        assert wait(lambda: known("active") == expected - SILENCED, 15), known("active") ^ (expected - SILENCED)
        critical = {a.name for a in ALERTS if a.severity == "critical"}
        loud = {fired for fired in expected if fired[0] in critical}
        quiet = expected - SILENCED - loud
        assert wait(lambda: told("firing", "critical") == loud, 15), told("firing", "critical") ^ loud
        assert wait(lambda: told("firing", "warning") >= quiet, 15), quiet - told("firing", "warning")
        assert told("firing", "warning") <= expected - loud

        for panel in dashboard(Options())["panels"]:  # its labels are right where it shows something
            for target in panel.get("targets", ()):
                expr = target["expr"].replace("$__rate_interval", "4s").replace("$model", ".*")
                assert query(expr), (panel["title"], expr)

        load.phase = "mended"
        second.enter_context(exporter(CollectorRegistry(), spare))
        assert wait(lambda: firing() == set(), 60), (firing(), "mended")
        assert wait(lambda: told("resolved", "critical") == loud, 30), told("resolved", "critical") ^ loud
        assert wait(lambda: told("resolved", "warning") >= quiet, 30), quiet - told("resolved", "warning")
        ever = get(
            f"http://127.0.0.1:{prom}/api/v1/query?query=max_over_time(ALERTS%7Balertstate=%22firing%22%7D[10m])"
        )
        assert {owner(r["metric"]) for r in ever["data"]["result"]} == expected, "a false alarm on the way"
