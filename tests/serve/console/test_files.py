"""The files as such: what a policy of 'self' forbids is not in them."""

import re

from fuseline.serve.console import HEADERS, files


def test_the_page_and_all_that_it_names_is_there() -> None:
    page = files()["/"][0].decode()
    named = set(re.findall(r'(?:src|href)="(console/[^"]+)"', page))
    for content, kind in files().values():
        if kind.startswith("text/javascript"):
            named |= {f"console/{n}" for n in re.findall(r'"\./([\w-]+\.js)"', content.decode())}
    assert named
    assert {f"/{n}" for n in named} | {"/"} == set(files()), "a file is missing, or nobody asks for it"


def test_types_fit_nosniff() -> None:
    kinds = {path.rpartition(".")[2]: kind for path, (_, kind) in files().items()}
    assert kinds["js"].startswith("text/javascript")
    assert kinds["css"].startswith("text/css")
    assert files()["/"][1].startswith("text/html")
    assert HEADERS["X-Content-Type-Options"] == "nosniff"


def test_nothing_inline_and_nothing_from_elsewhere() -> None:
    page = files()["/"][0].decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=|javascript:", page)
    for path, (content, _) in files().items():
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//\w+\.\w", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )


def test_the_policy_lets_no_code_in() -> None:
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert "unsafe" not in str(policy)
    assert "script-src" not in policy
