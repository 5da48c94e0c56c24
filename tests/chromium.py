"""A real browser for tests of pages."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

QUIET = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update")


@contextlib.contextmanager
def launched(*flags: str) -> Iterator[Any]:
    """Chromium without a window; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--headless", "--no-sandbox", *QUIET, *flags])
        yield browser
        browser.close()
