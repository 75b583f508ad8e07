"""Charts, drift and alerts from the status; quiet when nobody looks; the key; models that come and go."""

from __future__ import annotations

import time

from serve.console import standin
from serve.console.standin import VERSION, Page


def test_charts_show_the_series(page: Page) -> None:
    page.server.status = standin.status()
    page.open()
    page.wait(lambda: page.all(".line.a[d^=M]"))
    series = page.server.status["observers"]["metrics"]["models"]["clinic"]["series"]
    assert page.texts(".chart h3") == ["Requests per second", "Latency, ms", "Waiting rows"]
    traffic, latency, waiting = (
        page.js("return arguments[0].querySelector('.line.a').getAttribute('d')", c) for c in page.all(".chart")
    )
    assert traffic.count("L") == len(series) - 1
    assert latency.count("M") == 2, "seconds without a request break the line"
    assert waiting.count("L") == len(series) - 1
    last = series[-1]
    shown = page.texts(".legend b")
    assert shown[0] == f"{last[1] / 5:g}"
    assert shown[3] == f"{last[4]:.1f} ms"
    assert shown[5] == str(last[6])
    assert len(page.all(".chart .limit")) == 1
    labels = page.js("return [...document.querySelectorAll('.chart svg')].map(e => e.getAttribute('aria-label'))")
    assert all("last 10 minutes; now:" in label for label in labels)


def test_the_pointer_reads_a_moment(page: Page) -> None:
    page.server.status = standin.status()
    page.open()
    page.wait(lambda: page.all(".line.a[d^=M]"))
    page.probe("pointAt", page.one(".plot"), 44)
    first = page.server.status["observers"]["metrics"]["models"]["clinic"]["series"][0]
    assert page.texts(".legend b")[0] == f"{first[1] / 5:g}"
    assert len(page.all(".cursor")) == 1


def test_drift_and_alerts(page: Page) -> None:
    page.server.status = standin.status()
    page.open()
    page.wait(lambda: page.all("tbody tr"))
    assert page.texts("tr.alarm th bdi")[0] == "picture.brightness"
    assert len(page.all("tbody tr")) == 7
    assert "4,096 rows, checked 2 min ago: drift" in page.text("#live")
    assert page.texts("tbody .note") == ["median 0.28, was 0.47; PSI 0.61"], "words of what alarms, and of nothing else"
    assert "sound.seconds: fewer than 50 rows, not tested" in page.text("#live")
    assert page.texts(".alert strong") == ["FuselineErrorBudgetBurn", "FuselineDrift"], "the worst comes first"
    assert page.texts(".severity") == ["critical", "warning"]
    assert "4 min ago" in page.text(".alert")
    assert "17 of 256" in page.text(".tiles")
    assert page.text("#health") == "ready"


def test_a_server_without_observers_says_so(page: Page) -> None:
    page.server.status = standin.status() | {"observers": {}}
    page.open()
    page.wait(lambda: page.texts(".tile dd")[:1] == ["ready"])
    assert page.text("#live").count("Not watched by this server.") == 2
    assert page.text("#live").count("no requests yet") == 3


def test_nobody_looks_nobody_asks(page: Page) -> None:
    page.open()
    asked = page.server.asked
    page.wait(lambda: asked.count("/v1/status") >= 2)
    page.probe("hide", True)
    time.sleep(0.2)  # one may be on its way
    before = asked.count("/v1/status")
    time.sleep(2.5)
    assert asked.count("/v1/status") == before
    page.probe("hide", False)
    page.wait(lambda: asked.count("/v1/status") > before, 1)


def test_the_key_is_asked_for_and_kept_in_the_tab_alone(page: Page) -> None:
    page.server.key = "right"
    page.expected = ("status of 401",)
    page.open()
    page.wait(lambda: page.one("#key").is_displayed())
    assert page.js("return document.activeElement.id") == "key-field"
    page.one("#key-field").send_keys("wr ong\n")
    assert "without a space" in page.text("#key-note")
    page.js("document.querySelector('#key-field').value = ''")
    page.one("#key-field").send_keys("wrong\n")
    page.wait(lambda: "refused" in page.text("#key-note"))
    page.one("#key-field").send_keys("right\n")
    page.wait(lambda: page.all(".field"))
    assert not page.one("#key").is_displayed()
    page.predict()
    assert page.server.keys[-1] == "Bearer right"
    stored = page.js("return [JSON.stringify({...sessionStorage}), JSON.stringify({...localStorage}), document.cookie]")
    assert "right" in stored[0]
    assert "right" not in stored[1] + stored[2]
    page.one("#forget-key").click()
    page.wait(lambda: page.js("return sessionStorage.length") == 0 and page.one("#key").is_displayed())


def test_a_swapped_package_is_noticed_and_the_row_stays(page: Page) -> None:
    page.server.status = standin.status()
    page.open()
    page.control("note").send_keys("kept")
    page.wait(lambda: page.text("#health") == "ready")
    page.server.models = [standin.model(version="new")]
    page.server.status = standin.status(versions={"new": 1.0})
    page.wait(lambda: "new" in page.text("#version"))
    assert page.predict()["rows"] == [{"note": "kept"}]
    assert page.server.posted[-1][0] == "/v1/models/clinic/versions/new/predict"
    assert VERSION not in page.text("#version")


def test_a_server_that_went_away_is_told(page: Page) -> None:
    page.open()
    page.expected = ("ERR_FAILED", "ERR_INTERNET_DISCONNECTED")
    off = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", off)
    try:
        page.wait(lambda: page.text("#health") == "unreachable")
        page.one("#send").click()
        page.wait(lambda: "cannot be reached" in page.text("#answer"))
    finally:
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", off | {"offline": False})
    page.wait(lambda: page.text("#health") != "unreachable")


def test_a_model_that_is_not_loaded_yet_is_waited_for(page: Page) -> None:
    page.server.models = []
    page.open()
    page.wait(lambda: "no model is loaded yet" in page.text("#trouble"))
    page.server.models = [standin.model()]
    page.wait(lambda: page.all(".field"))
    assert not page.one("#trouble").is_displayed()
