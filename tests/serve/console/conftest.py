from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium import webdriver
from serve.console.standin import Page, Standin, browser, serving


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chrome = browser(tmp_path_factory.mktemp("profile"))
    yield chrome
    chrome.quit()


@pytest.fixture
def server() -> Iterator[Standin]:
    """Its own port, hence its own origin: no test sees another's storage."""
    with serving(Standin()) as standin:
        yield standin


@pytest.fixture
def page(driver: webdriver.Chrome, server: Standin) -> Iterator[Page]:
    """Not yet opened. Afterwards: no message in the browser's console, and no host asked but the server."""
    driver.get("about:blank")
    Page(driver, server).collect()  # what the tests before left unread
    console = Page(driver, server)
    yield console
    console.collect()
    assert console.failures == []
    assert console.hosts == {server.url.split("/")[2]}
    driver.get("about:blank")  # its polling would go on otherwise
