import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.fetch import Fetcher, FetchSettings, beside, local_path
from ingest.refused import Refused
from tests.ingest.tiny import triangle_glb
from tests.ingest.web import Web

CONTENT = triangle_glb() + bytes(5000)
QUICK = FetchSettings(
    attempts=3, first_wait_s=0.01, longest_wait_s=0.05, timeout_s=2.0, deadline_s=10.0, allow_private=True
)


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
        ("403", ("login_needed", 1)),
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
    fetcher = Fetcher(replace(QUICK, deadline_s=0.5, timeout_s=5.0))
    started = time.monotonic()
    found = refusal(fetcher, f"{web.url}/file.glb", tmp_path)
    assert time.monotonic() - started < 3.0
    assert found.reason == "fetch_failed"
    assert "deadline" in found.detail
    fetcher.close()


def test_retries_end_at_the_deadline(web: Web, tmp_path: Path) -> None:
    web.faults["/x"] = "503"
    fetcher = Fetcher(replace(QUICK, attempts=1000, first_wait_s=0.1, longest_wait_s=0.2, deadline_s=0.6))
    started = time.monotonic()
    assert refusal(fetcher, f"{web.url}/x", tmp_path).reason == "fetch_failed"
    assert time.monotonic() - started < 3.0
    fetcher.close()


def test_a_server_that_asks_for_time_gets_it(web: Web, tmp_path: Path) -> None:
    web.files["/file.glb"] = CONTENT
    web.faults["/file.glb"] = "busyx1"
    fetcher = Fetcher(replace(QUICK, longest_wait_s=0.4))
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


def test_a_download_goes_on_where_it_was_cut(fetcher: Fetcher, web: Web, tmp_path: Path) -> None:
    web.etags["/file.glb"], web.faults["/file.glb"] = '"v1"', "halfx1"
    found = fetcher.fetch(f"{web.url}/file.glb", tmp_path / "target", max_bytes=10**6)
    assert web.ranges == ["", f"bytes={len(CONTENT) // 2}-"]
    assert found.path.read_bytes() == CONTENT
    assert (found.num_bytes, found.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@pytest.mark.parametrize("etags", [('"v1"', '"v2"'), ('W/"v1"', 'W/"v1"')])
def test_two_versions_are_never_joined(
    fetcher: Fetcher, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, etags: tuple[str, str]
) -> None:
    other = triangle_glb() + bytes(range(256)) * 20
    web.etags["/file.glb"], web.faults["/file.glb"] = etags[0], "halfx1"

    def change(*_: object) -> None:
        web.files["/file.glb"], web.etags["/file.glb"] = other, etags[1]

    monkeypatch.setattr("tenacity.nap.time.sleep", change)
    found = fetcher.fetch(f"{web.url}/file.glb", tmp_path / "target", max_bytes=10**6)
    assert found.path.read_bytes() == other
    assert found.sha256 == hashlib.sha256(other).hexdigest()


def test_a_host_is_not_asked_too_much_at_once(web: Web, tmp_path: Path) -> None:
    web.files["/file.glb"], web.faults["/file.glb"] = CONTENT, "wait"
    fetcher = Fetcher(replace(QUICK, per_host=2))
    with ThreadPoolExecutor(8) as pool:
        targets = [tmp_path / str(number) for number in range(8)]
        list(pool.map(lambda target: fetcher.fetch(f"{web.url}/file.glb", target, max_bytes=10**6), targets))
    assert web.asked["/file.glb"] == 8
    assert web.most_at_once == 2
    fetcher.close()


def test_a_host_that_asks_for_rest_gets_it_from_everybody(web: Web, tmp_path: Path) -> None:
    web.files |= {"/file.glb": CONTENT, "/other.glb": CONTENT}
    web.faults["/file.glb"] = "busyx1"
    fetcher = Fetcher(replace(QUICK, attempts=1, longest_wait_s=0.5))
    with pytest.raises(Refused):
        fetcher.fetch(f"{web.url}/file.glb", tmp_path / "a", max_bytes=10**6)
    started = time.monotonic()
    fetcher.fetch(f"{web.url}/other.glb", tmp_path / "b", max_bytes=10**6)
    assert time.monotonic() - started > 0.3
    fetcher.close()


def test_nothing_leads_into_private_networks_unless_allowed(web: Web, tmp_path: Path) -> None:
    web.files["/file.glb"] = CONTENT
    fetcher = Fetcher(replace(QUICK, allow_private=False))
    port = web.url.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "0.0.0.0"):
        assert refusal(fetcher, f"http://{host}:{port}/file.glb", tmp_path).reason == "private_address", host
    assert fetcher.size(f"{web.url}/file.glb") is None
    assert not web.asked
    fetcher.close()


def test_a_host_that_is_named_may_be_private_and_no_other(web: Web, tmp_path: Path) -> None:
    web.files["/file.glb"] = CONTENT
    host = web.url.removeprefix("http://")
    fetcher = Fetcher(replace(QUICK, allow_private=False, private_hosts=f"10.0.0.1:80, {host}"))
    assert fetcher.fetch(f"{web.url}/file.glb", tmp_path / "target", max_bytes=10**6).num_bytes == len(CONTENT)
    for number, place in enumerate((f"http://localhost:{host[-5:]}", "http://127.0.0.1:9", "http://10.0.0.1:81")):
        web.faults[f"/away{number}"] = f"to:{place}/file.glb"
        assert refusal(fetcher, f"{web.url}/away{number}", tmp_path).reason == "private_address", place
    assert web.asked["/file.glb"] == 1
    fetcher.close()


def test_waiting_for_its_turn_costs_a_download_nothing(web: Web, tmp_path: Path) -> None:
    """Twelve downloads of 0.1 s, one after the other, each of which has half a second."""
    web.files["/file.glb"], web.faults["/file.glb"] = CONTENT, "wait"
    fetcher = Fetcher(replace(QUICK, per_host=1, deadline_s=0.5, attempts=1))
    with ThreadPoolExecutor(12) as pool:
        targets = [tmp_path / str(number) for number in range(12)]
        list(pool.map(lambda target: fetcher.fetch(f"{web.url}/file.glb", target, max_bytes=10**6), targets))
    assert web.most_at_once == 1
    fetcher.close()


def test_a_redirect_into_a_private_network_is_refused(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first host counts as public here; where it sends us does not."""
    port = web.url.rpartition(":")[2]
    web.files["/file.glb"], web.faults["/away"] = CONTENT, f"to:http://localhost:{port}/file.glb"
    monkeypatch.setattr("ingest.hosts.is_private", lambda address: address == "localhost")
    fetcher = Fetcher(replace(QUICK, allow_private=False))
    assert refusal(fetcher, f"{web.url}/away", tmp_path).reason == "private_address"
    assert web.asked == {"/away": 1}
    web.faults["/away"] = "to:file:///etc/passwd"
    assert refusal(fetcher, f"{web.url}/away", tmp_path).reason == "fetch_failed"
    fetcher.close()


def test_a_name_that_leads_elsewhere_the_second_time_is_refused(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.files["/file.glb"] = CONTENT
    monkeypatch.setattr("ingest.hosts._addresses", lambda host: ["93.184.216.34"])
    monkeypatch.setattr("ingest.hosts.Private.refuse", lambda self, request: None)
    fetcher = Fetcher(replace(QUICK, allow_private=False))
    assert refusal(fetcher, f"{web.url}/file.glb", tmp_path).reason == "private_address"
    assert not (tmp_path / "target").exists()
    fetcher.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"attempts": 0},
        {"timeout_s": 0},
        {"deadline_s": -1},
        {"first_wait_s": 100.0},
        {"first_wait_s": -1.0},
        {"connections": 0},
        {"byte_budget": -1},
    ],
)
def test_bad_settings_are_an_error_at_once(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        FetchSettings(**settings)  # type: ignore[arg-type]
