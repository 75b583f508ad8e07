"""A small server with the console's files and canned answers in the shapes of the people's API, and the browser."""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from fuseline.serve.console import HEADERS, files

VERSION = "4f0c2d9a1b7e6358"
PROBES = (Path(__file__).parent / "probes.js").read_text(encoding="utf-8")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


def column(name: str, kind: str, input: str, values: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"name": name, "kind": kind, "input": input, "required": False, "values": list(values)}


def model(**changes: Any) -> dict[str, Any]:
    out = {
        "name": "clinic",
        "version": VERSION,
        "task": "classification",
        "mode": "binary",
        "classes": ["no", "yes"],
        "targets": ["sick"],
        "inputs": {"picture": "image", "note": "text", "sound": "audio", "vitals": "tabular"},
        "columns": [
            column("picture", "image", "picture"),
            column("note", "text", "note"),
            column("sound", "audio", "sound"),
            column("age", "number", "vitals"),
            column("sex", "category", "vitals", ("f", "m")),
            column("smoker", "boolean", "vitals"),
            column("seen", "date", "vitals"),
        ],
        "bytes": 4_812_331,
        "fuseline": "0.2.0",
        "metric": "auroc",
        "metrics": {"accuracy": 0.8712, "auroc": 0.9431, "brier": 0.0917},
        "notice": "This is <b>no</b> medical device.",
        "default": True,
    }
    return out | changes


def answer(**changes: Any) -> dict[str, Any]:
    out = {
        "value": "yes",
        "probabilities": {"no": 0.169, "yes": 0.831},
        "used": ["picture", "note", "vitals"],
        "absent": ["sound"],
        "contributions": {"class": "yes", "base": 0.412, "inputs": {"picture": 0.287, "note": 0.184, "vitals": -0.052}},
    }
    return out | changes


def reply(*answers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    out = {
        "model": "clinic",
        "version": VERSION,
        "request_id": "9b1f0c7e2a",
        "answers": list(answers) or [answer()],
        "timing": {"queue_ms": 1.42, "compute_ms": 23.9},
    }
    return out | changes


def status(now: float = 0.0, *, name: str = "clinic", versions: dict[str, float] | None = None) -> dict[str, Any]:
    """A busy ten minutes: a wave of traffic, a burst of errors, drift of one feature, two alerts."""
    now = now or time.time()
    series = []
    for i in range(120):
        wave = 40 + 18 * math.sin(i / 13) + 5 * math.sin(i * 2.1)
        burst = 70 < i < 82
        p50 = 22 + 3 * math.sin(i / 7) + 20 * burst
        series.append(
            [
                now - 5 * (119 - i),
                round(5 * wave),
                round(4 * burst * wave / 3),
                round(wave * 2 * (74 < i < 79)),
                None if 30 < i < 34 else p50,
                None if 30 < i < 34 else p50 * 2.4,
                round(12 + 8 * math.sin(i / 9) + 150 * burst),
            ]
        )
    names = ["picture.brightness", "vitals.age", "note", "embedding", "predictions", "sound.loudness", "vitals.sex"]
    tests = ["ks", "psi", "absent share", "mmd", "chi-square", "ks", "chi-square"]
    return {
        "gauges": [
            {
                "model": name,
                "waiting_rows": 17,
                "limit_rows": 256,
                "versions": versions or {VERSION: 1.0},
                "ready": True,
                "workers": 2,
                "restarts": 1,
            }
        ],
        "observers": {
            "metrics": {
                "models": {
                    name: {
                        "series": series,
                        "totals": {"requests": 23891, "errors": 412, "rows": 31077},
                        "answers": {"no": 21400, "yes": 9265},
                    }
                }
            },
            "drift": {
                "models": {
                    name: {
                        "rows": 4096,
                        "checked": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 130)),
                        "alarm": True,
                        "features": [
                            {"feature": f, "test": t, "score": 0.31 / (i + 1), "threshold": 0.2, "alarm": i == 0}
                            | {"words": "median 0.28, was 0.47; PSI 0.61"}
                            for i, (f, t) in enumerate(zip(names, tests, strict=True))
                        ],
                        "notes": ["sound.seconds: fewer than 50 rows, not tested"],
                    }
                }
            },
            "alerts": {
                "alerts": [
                    {
                        "name": "FuselineDrift",
                        "severity": "warning",
                        "model": name,
                        "summary": "picture.brightness has drifted from the training table",
                        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 900)),
                    },
                    {
                        "name": "FuselineErrorBudgetBurn",
                        "severity": "critical",
                        "model": name,
                        "summary": "1.7 % of requests failed in the last hour: the month's budget lasts 2 days",
                        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 240)),
                    },
                ]
            },
        },
    }


@dataclass
class Standin:
    """What the server answers, set by a test, and what it was asked."""

    models: list[dict[str, Any]] = field(default_factory=lambda: [model()])
    status: dict[str, Any] = field(default_factory=lambda: {"gauges": [], "observers": {}})
    predict: Callable[[dict[str, Any]], tuple[int, Any]] = lambda body: (200, reply())
    explain: Callable[[dict[str, Any]], tuple[int, Any]] = lambda body: (404, {"error": "not set", "code": "not_found"})
    headers: dict[str, str] = field(default_factory=dict)
    key: str | None = None
    url: str = ""
    posted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    why: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """what was posted for explanations"""
    asked: list[str] = field(default_factory=list)
    """paths, in order"""
    keys: list[str | None] = field(default_factory=list)

    def respond(self, path: str, body: bytes | None, key: str | None) -> tuple[int, bytes, str]:
        self.asked.append(path)
        if path in files():
            content, kind = files()[path]
            return 200, content, kind
        self.keys.append(key)
        code, data = 404, {"error": "no such path", "code": "not_found", "hint": "", "request_id": "x"}
        if self.key is not None and key != f"Bearer {self.key}":
            code, data = 401, {"error": "this key is not known", "code": "unauthorized", "hint": "", "request_id": "x"}
        elif path == "/v1/models":
            code, data = 200, {"models": self.models}
        elif path == "/v1/status":
            code, data = 200, self.status
        elif body is not None and path.endswith("/predict"):
            self.posted.append((path, json.loads(body)))
            code, data = self.predict(self.posted[-1][1])
        elif body is not None and path.endswith("/explain"):
            self.why.append((path, json.loads(body)))
            code, data = self.explain(self.why[-1][1])
        return code, json.dumps(data).encode(), "application/json"


@contextmanager
def serving(standin: Standin) -> Iterator[Standin]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self, body: bytes | None = None) -> None:
            path = urlsplit(self.path).path
            code, content, kind = standin.respond(path, body, self.headers.get("Authorization"))
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            for name, value in (HEADERS | standin.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET(self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    standin.url = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        yield standin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def browser(profile: Path) -> webdriver.Chrome:
    """A headless Chromium of this machine; nothing is downloaded."""
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if binary is None or driver is None:
        reason = "no chromium and chromedriver here: apt-get install chromium chromium-driver"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


class Page:
    """The console in the browser, in the words of its user."""

    def __init__(self, driver: webdriver.Chrome, server: Standin) -> None:
        self.driver, self.server = driver, server
        self.expected: tuple[str, ...] = ()
        """parts of console messages that the test provokes, such as a status"""
        self.failures: list[str] = []
        self.hosts: set[str] = set()

    def open(self, width: int = 1280, height: int = 900, *, dark: bool = False) -> Page:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        scheme.append({"name": "prefers-reduced-motion", "value": "reduce"})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        self.driver.get(self.server.url)
        if self.server.key is None and self.server.models:
            self.wait(lambda: self.all(".field"))
        return self

    def js(self, script: str, *args: Any) -> Any:
        return self.driver.execute_script(script, *args)

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        return str(self.js("return document.querySelector(arguments[0])?.textContent ?? ''", css))

    def texts(self, css: str) -> list[str]:
        return list(self.js("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css))

    def wait(self, true: Callable[[], Any], seconds: float = 10) -> Any:
        end = time.monotonic() + seconds
        while True:
            if found := true():
                return found
            assert time.monotonic() < end, "what was waited for did not come"
            time.sleep(0.03)

    def field(self, column: str) -> WebElement:
        """The field whose name is `column`."""
        for node in self.all(".field"):
            if node.find_element(By.CSS_SELECTOR, ".field-head bdi").text == column:
                return node
        raise AssertionError(f"no field {column}")

    def control(self, column: str, css: str = "input, textarea") -> WebElement:
        return self.field(column).find_element(By.CSS_SELECTOR, css)

    def press(self, node: WebElement) -> None:
        """A click in the middle of the window, clear of the bar that sticks to its end."""
        self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", node)
        node.click()

    def choose(self, column: str, place: int) -> None:
        """One of yes, no, absent."""
        self.press(self.field(column).find_elements(By.CSS_SELECTOR, "input")[place])

    def state(self, column: str) -> str:
        return str(self.field(column).get_attribute("data-state"))

    def error(self, column: str) -> str:
        return self.field(column).find_element(By.CSS_SELECTOR, ".error").text

    def predict(self) -> dict[str, Any]:
        """Presses Predict, waits for the answer or the error; the JSON that was posted."""
        before = len(self.server.posted)
        self.one("#send").click()
        self.wait(lambda: len(self.server.posted) > before)
        self.wait(lambda: self.one("#answer-pane").get_attribute("aria-busy") == "false")
        return self.server.posted[-1][1]

    def probe(self, name: str, *args: Any) -> Any:
        """A function of probes.js."""
        return self.js(f"{PROBES}\nreturn {name}(...arguments)", *args)

    def drop(self, column: str, content: bytes, name: str, kind: str) -> None:
        zone = self.field(column).find_element(By.CSS_SELECTOR, ".zone")
        self.probe("drop", zone, base64.b64encode(content).decode(), name, kind)

    def enter(self, column: str, value: str) -> None:
        """What no key can type, or typing differs by locale."""
        self.probe("enter", self.control(column), value)

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.js("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def collect(self) -> None:
        """Takes what the browser wrote to its console, and which hosts it asked."""
        for entry in self.driver.get_log("browser"):
            if entry["level"] in ("SEVERE", "WARNING") and not any(e in entry["message"] for e in self.expected):
                self.failures.append(entry["message"])
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = urlsplit(message["params"]["request"]["url"])
                if url.scheme in ("http", "https", "ws", "wss"):
                    self.hosts.add(url.netloc)
