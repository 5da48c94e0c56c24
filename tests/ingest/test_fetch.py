import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.fetch import Fetcher, FetchSettings, beside, local_path
from ingest.refused import Refused
from tests.ingest.tiny import triangle_glb
from tests.ingest.web import Web

CONTENT = triangle_glb() + bytes(5000)
QUICK = FetchSettings(attempts=3, first_wait_s=0.01, longest_wait_s=0.05, timeout_s=2.0, deadline_s=10.0)


@pytest.fixture
def fetcher(web: Web) -> Iterator[Fetcher]:
    web.files["/file.glb"] = CONTENT
    fetcher = Fetcher(QUICK)
    yield fetcher
    fetcher.close()


def refusal(fetcher: Fetcher, uri: str, tmp_path: Path, max_bytes: int = 10**6) -> Refused:
    with pytest.raises(Refused) as found:
        fetcher.fetch(uri, tmp_path / "target", max_bytes=max_bytes)
    return found.value


@pytest.mark.parametrize(
    ("fault", "asked"),
    [("", 1), ("503x2", 3), ("429x1", 2), ("cutx1", 2), ("dropx2", 3), ("500x2", 3), ("408x1", 2), ("unsized", 1)],
)
def test_a_file_comes_whole_in_spite_of_passing_faults(
    fetcher: Fetcher, web: Web, tmp_path: Path, fault: str, asked: int
) -> None:
    web.faults["/file.glb"] = fault
    found = fetcher.fetch(f"{web.url}/file.glb", tmp_path / "target", max_bytes=10**6)
    assert found.path.read_bytes() == CONTENT
    assert (found.num_bytes, found.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert web.asked["/file.glb"] == asked


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("404", ("not_found", 1)),
        ("410", ("not_found", 1)),
        ("451", ("not_found", 1)),
        ("403", ("fetch_failed", 1)),
        ("503", ("fetch_failed", 3)),
        ("cut", ("fetch_failed", 3)),
        ("drop", ("fetch_failed", 3)),
        ("noai", ("noai", 1)),
    ],
)
def test_a_lasting_fault_is_classified(
    fetcher: Fetcher, web: Web, tmp_path: Path, fault: str, outcome: tuple[str, int]
) -> None:
    web.faults["/file.glb"] = fault
    found = refusal(fetcher, f"{web.url}/file.glb", tmp_path)
    assert (found.reason, web.asked["/file.glb"]) == outcome


def test_a_redirect_is_followed_but_not_for_ever(fetcher: Fetcher, web: Web, tmp_path: Path) -> None:
    web.faults |= {"/away": "away", "/round": "round"}
    assert fetcher.fetch(f"{web.url}/away", tmp_path / "target", max_bytes=10**6).num_bytes == len(CONTENT)
    assert refusal(fetcher, f"{web.url}/round", tmp_path).reason == "fetch_failed"


def test_a_web_page_is_known_by_its_first_bytes(fetcher: Fetcher, web: Web, tmp_path: Path) -> None:
    web.files["/login"] = b"<!DOCTYPE html><html>please log in" + bytes(10**5)
    assert refusal(fetcher, f"{web.url}/login", tmp_path).reason == "not_an_asset"


@pytest.mark.parametrize("fault", ["", "unsized"])
def test_what_is_too_large_is_refused(fetcher: Fetcher, web: Web, tmp_path: Path, fault: str) -> None:
    web.faults["/file.glb"] = fault
    assert refusal(fetcher, f"{web.url}/file.glb", tmp_path, max_bytes=2000).reason == "too_large"
    written = (tmp_path / "target").stat().st_size if (tmp_path / "target").exists() else 0
    assert written <= 2000


def test_a_trickle_ends_at_the_deadline(web: Web, tmp_path: Path) -> None:
    web.files["/file.glb"] = CONTENT
    web.faults["/file.glb"] = "slow"
    fetcher = Fetcher(FetchSettings(deadline_s=0.5, timeout_s=5.0))
    started = time.monotonic()
    found = refusal(fetcher, f"{web.url}/file.glb", tmp_path)
    assert time.monotonic() - started < 3.0
    assert found.reason == "fetch_failed"
    assert "deadline" in found.detail
    fetcher.close()


def test_retries_end_at_the_deadline(web: Web, tmp_path: Path) -> None:
    web.faults["/x"] = "503"
    fetcher = Fetcher(FetchSettings(attempts=1000, first_wait_s=0.1, longest_wait_s=0.2, deadline_s=0.6))
    started = time.monotonic()
    assert refusal(fetcher, f"{web.url}/x", tmp_path).reason == "fetch_failed"
    assert time.monotonic() - started < 3.0
    fetcher.close()


def test_a_server_that_asks_for_time_gets_it(web: Web, tmp_path: Path) -> None:
    web.files["/file.glb"] = CONTENT
    web.faults["/file.glb"] = "busyx1"
    fetcher = Fetcher(FetchSettings(first_wait_s=0.01, longest_wait_s=0.4))
    started = time.monotonic()
    fetcher.fetch(f"{web.url}/file.glb", tmp_path / "target", max_bytes=10**6)
    assert 0.4 <= time.monotonic() - started < 5.0
    fetcher.close()


def test_a_server_that_is_not_there_is_a_failed_fetch(fetcher: Fetcher, tmp_path: Path) -> None:
    found = refusal(fetcher, "http://127.0.0.1:9/a.glb", tmp_path)
    assert found.reason == "fetch_failed"
    assert "attempt 3 of 3" in found.detail


@pytest.mark.parametrize("uri", ["s3://bucket/a.glb", "http://[bad/a.glb", "http://", "data://x"])
def test_a_url_we_cannot_fetch_is_refused(fetcher: Fetcher, tmp_path: Path, uri: str) -> None:
    assert refusal(fetcher, uri, tmp_path).reason in ("not_found", "fetch_failed")


def test_a_local_file_is_used_where_it_lies(fetcher: Fetcher, tmp_path: Path) -> None:
    path = tmp_path / "a b%.glb"
    path.write_bytes(CONTENT)
    for uri in (str(path), path.as_uri()):
        found = fetcher.fetch(uri, tmp_path / "target", max_bytes=10**6)
        assert (found.path, found.sha256) == (path, hashlib.sha256(CONTENT).hexdigest())
    assert not (tmp_path / "target").exists()
    assert refusal(fetcher, str(path), tmp_path, max_bytes=10).reason == "too_large"


@pytest.mark.parametrize("name", ["gone.glb", "x" * 5000, "a\0b.glb", "."])
def test_a_local_file_that_is_not_there_is_not_found(fetcher: Fetcher, tmp_path: Path, name: str) -> None:
    assert refusal(fetcher, f"{tmp_path}/{name}", tmp_path).reason == "not_found"


def test_a_pipe_is_not_waited_for(fetcher: Fetcher, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.glb")
    assert refusal(fetcher, str(tmp_path / "pipe.glb"), tmp_path).reason == "not_found"


def test_sizes_are_asked_for_without_fetching(fetcher: Fetcher, web: Web, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(b"12345")
    assert fetcher.size(str(tmp_path / "a.glb")) == 5
    assert fetcher.size(f"{web.url}/file.glb") == len(CONTENT)
    assert fetcher.size(f"{web.url}/gone.glb") is None
    assert fetcher.size("s3://bucket/a.glb") is None
    assert not web.asked


def test_side_files_stand_beside_the_main_file() -> None:
    assert beside("https://h/a/b.gltf?x=1", "tex/a b.png") == "https://h/a/tex/a%20b.png"
    assert beside("/a/b.gltf", "tex/a b.png") == "/a/tex/a b.png"
    assert local_path("https://h/a") is None


@pytest.mark.parametrize(
    "settings", [{"attempts": 0}, {"timeout_s": 0}, {"deadline_s": -1}, {"first_wait_s": 100.0}, {"first_wait_s": -1.0}]
)
def test_bad_settings_are_an_error_at_once(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        FetchSettings(**settings)  # type: ignore[arg-type]
