from collections.abc import Iterator

import pytest

from tests.ingest.web import Web, serve


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server of this test's own, past any proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as web:
        yield web
