"""The programs on the page are run: what they send is what the page sends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from serve.console import standin
from serve.console.standin import Page

EVIL_TEXT = 'it\'s "so" $(touch gone) `touch gone` $HOME \\n \\$ 100 % !! \n<<JSON\nJSON\n\u2028 עברית 🫀 </script>'
EVIL_FILE = "a '$(touch gone)' `x`\u202e\n \"b\".png"
PLACED = "a '$(touch gone)' `x`__ \"b\".png"


def snippet(page: Page, label: str) -> str:
    tab = next(t for t in page.all("[role=tab]") if t.text == label)
    tab.click()
    panel = tab.get_attribute("aria-controls")
    page.js("return new Promise(r => setTimeout(r, 200))")  # they are written when typing pauses
    return page.text(f"#{panel} code")


def run(page: Page, label: str, shell: str, folder: Path) -> dict[str, object]:
    program = snippet(page, label)
    command = [sys.executable, "-c", program] if label == "Python" else [shell, "-c", program]
    before = len(page.server.posted)
    env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "FUSELINE_KEY": "k3y", "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert '"value"' in done.stdout
    assert not (folder / "gone").exists(), "something in the text was executed"
    [(path, body)] = page.server.posted[before:]
    assert path.endswith("/predict")
    return body


@pytest.mark.parametrize(("label", "shell"), [("curl", "bash"), ("curl", "sh"), ("Python", "")])
def test_they_send_what_the_page_sends(page: Page, tmp_path: Path, label: str, shell: str) -> None:
    if label == "curl":
        assert shutil.which("curl"), "this test runs curl"
    evil = standin.column("`$(touch gone)`'\"\\", "text", "note")
    page.server.models = [standin.model(columns=[*standin.model()["columns"], evil])]
    page.open()
    for column in ("note", evil["name"]):
        page.enter(column, EVIL_TEXT)
    page.control("age").send_keys("-0.5")
    page.choose("smoker", 0)
    content = os.urandom(300_000)  # more than a command line may hold
    page.drop("picture", content, EVIL_FILE, "image/png")
    page.drop("sound", b"x", "-n.wav", "audio/wav")
    (tmp_path / PLACED).write_bytes(content)
    (tmp_path / "-n.wav").write_bytes(b"x")
    sent = page.predict()
    assert sent["rows"][0]["note"] == EVIL_TEXT
    assert run(page, label, shell, tmp_path) == sent


@pytest.mark.parametrize("label", ["curl", "Python"])
def test_an_empty_row_and_no_contributions(page: Page, tmp_path: Path, label: str) -> None:
    page.open()
    page.one("#contributions").click()
    assert run(page, label, "sh", tmp_path) == {"rows": [{}], "contributions": False}


@pytest.mark.parametrize("label", ["curl", "Python"])
def test_the_key_comes_from_the_environment(page: Page, tmp_path: Path, label: str) -> None:
    page.server.key = "k3y"
    page.expected = ("status of 401",)
    page.open()
    page.wait(lambda: page.one("#key").is_displayed())
    page.one("#key-field").send_keys("k3y\n")
    page.wait(lambda: page.all(".field"))
    assert run(page, label, "sh", tmp_path)["rows"] == [{}]
    assert page.server.keys[-1] == "Bearer k3y"
    assert "k3y" not in snippet(page, label)


def test_copy_takes_the_tab_that_is_seen(page: Page) -> None:
    page.open()
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": page.server.url.rstrip("/")},
    )
    wanted = snippet(page, "Python")
    button = page.one(".tabs > button")
    button.click()
    page.wait(lambda: button.text == "Copied")
    read = "const done = arguments[0]; navigator.clipboard.readText().then(done, e => done(String(e)))"
    assert page.driver.execute_async_script(read) == wanted
