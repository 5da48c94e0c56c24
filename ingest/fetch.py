"""Brings an asset's files to this machine: local paths as they are, http(s) with retries, a deadline and a limit."""

import functools
import hashlib
import os
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urljoin

import httpx
import tenacity

from ingest.hosts import Deadline, Hosts, Private
from ingest.refused import Passing, Refused
from ingest.sniff import raise_if_web_page

_GONE = frozenset({404, 410, 451})
_PASSING = frozenset({408, 425, 429})
_OPT_OUT = frozenset({"noai", "noimageai"})


@dataclass(frozen=True, kw_only=True)
class FetchSettings:
    """How patient a download is. None of this changes what is fetched, only whether it succeeds."""

    attempts: int = 5
    """For one file; a missing file is not asked for again."""
    first_wait_s: float = 1.0
    """Before the second attempt; doubles each time, with jitter. A server's `Retry-After` counts if it is longer."""
    longest_wait_s: float = 60.0
    timeout_s: float = 30.0
    """Without a byte, or for a connection."""
    deadline_s: float = 900.0
    """For one file, all attempts together; waiting for one's turn at its host does not count."""
    connections: int = 64
    """Downloads under way at once in one run."""
    per_host: int = 16
    """Of these, requests to one host; on a cluster, for each 64 connections."""
    byte_budget: int = 0
    """Bytes of assets in the data root, those of earlier runs included, after which nothing more is fetched; what is
    left stays to do. 0 is no limit."""
    allow_private: bool = False
    """Let URLs and redirects lead to this machine and to private networks. Lists from strangers must not."""
    private_hosts: str = ""
    """Hosts of private networks that may be asked all the same, by commas, with their port: `10.0.0.7:8000`. A mirror
    of yours, say."""
    user_agent: str = "mv4d"

    def __post_init__(self) -> None:
        for name in ("attempts", "connections", "per_host"):
            if getattr(self, name) < 1:
                raise ValueError(f"fetch.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("timeout_s", "deadline_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"fetch.{name} must be positive, got {getattr(self, name)}")
        if self.byte_budget < 0:
            raise ValueError(f"fetch.byte_budget must not be negative, got {self.byte_budget}")
        if not 0 <= self.first_wait_s <= self.longest_wait_s:
            raise ValueError(f"fetch.first_wait_s must lie in 0..longest_wait_s, got {self.first_wait_s}")


@dataclass(frozen=True)
class Fetched:
    """A file on this machine. A local input is not copied: `path` is the original."""

    path: Path
    num_bytes: int
    sha256: str


@dataclass
class _Partial:
    """What has come of a download so far, over all attempts."""

    path: Path
    num_bytes: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    validator: str = ""
    """By which the server knows this version of the file again; without one there is no going on in the middle."""

    def begin(self, validator: str) -> None:
        """Nothing has come."""
        self.num_bytes, self.digest, self.validator = 0, hashlib.sha256(), validator
        self.path.write_bytes(b"")

    def headers(self) -> dict[str, str]:
        """What to send to get only the rest."""
        if not (self.num_bytes and self.validator):
            return {}
        return {"Range": f"bytes={self.num_bytes}-", "If-Range": self.validator}


class Fetcher:
    """Fetches files; holds the connections. Safe to share between threads."""

    def __init__(self, settings: FetchSettings, *, honour_noai: bool = True) -> None:
        """Open nothing yet.

        Args:
            settings: Patience.
            honour_noai: Refuse what a server's `X-Robots-Tag` reserves from AI.
        """
        self._settings = settings
        self._honour_noai = honour_noai
        # Called before every request and after every answer's header, those of redirects included.
        self._hooks = {} if settings.allow_private else Private(settings.private_hosts).hooks
        self._hosts = Hosts(settings.per_host)
        self._of_thread = threading.local()
        self._clients: list[httpx.Client] = []

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()

    def _client(self) -> httpx.Client:
        """The calling thread's own: a client that threads share spends half their time waiting for its pool's lock."""
        if not hasattr(self._of_thread, "client"):
            client = self._of_thread.client = httpx.Client(
                follow_redirects=True,
                verify=_tls(),
                timeout=self._settings.timeout_s,
                # Identity: sizes mean what they say, and no bomb can unfold on the way.
                headers={"User-Agent": self._settings.user_agent, "Accept-Encoding": "identity"},
                limits=httpx.Limits(max_keepalive_connections=2),  # a host, and where it redirects to
                event_hooks=self._hooks,
            )
            self._clients.append(client)
        mine: httpx.Client = self._of_thread.client
        return mine

    def fetch(self, uri: str, target: Path, *, max_bytes: int, headers: Mapping[str, str] | None = None) -> Fetched:
        """Bring a file here.

        Args:
            uri: A local path, or a `file:`, `http:` or `https:` URL.
            target: Where a download goes.
            max_bytes: Above that, it is refused as soon as it is known.
            headers: To send as well. `Authorization` is not sent on to another host by a redirect.

        Raises:
            Refused: `not_found`, `fetch_failed`, `login_needed`, `private_address`, `too_large`, `not_an_asset` or
                `noai`.
        """
        local = local_path(uri)
        if local is not None:
            return _local_file(local, max_bytes)
        scheme = uri.partition("://")[0].lower()
        if scheme not in ("http", "https"):
            raise Refused("not_found", f"we cannot fetch {scheme}:// URLs", "give a local path or an http(s) URL")
        partial = _Partial(target)
        sent = dict(headers or {})
        return self._with_retries(lambda deadline: self._download(uri, partial, max_bytes, deadline, sent))

    def size(self, uri: str) -> int | None:
        """Bytes of a file, asked for without fetching it; None if it cannot be told."""
        local = local_path(uri)
        if local is not None:
            return local.stat().st_size if os.path.isfile(local) else None
        try:
            answer = self._client().head(uri)
        except (httpx.HTTPError, httpx.InvalidURL, Refused):
            return None
        return _content_length(answer) if answer.is_success else None

    def _with_retries(self, attempt: Callable[[Deadline], Fetched]) -> Fetched:
        settings = self._settings
        deadline = Deadline(settings.deadline_s)
        growing = tenacity.wait_exponential(multiplier=settings.first_wait_s, max=settings.longest_wait_s)
        jittered = growing + tenacity.wait_random(0, settings.first_wait_s)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait_s if isinstance(error, Passing) else 0.0
            return min(max(asked, jittered(state)), settings.longest_wait_s)

        def is_over(state: tenacity.RetryCallState) -> bool:
            return state.attempt_number >= settings.attempts or wait(state) > deadline.left_s

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Passing), wait=wait, stop=is_over, reraise=True
        )
        try:
            return retrying(attempt, deadline)
        except Passing as error:
            attempts = retrying.statistics.get("attempt_number", 1)
            raise Refused("fetch_failed", f"{error} (attempt {attempts} of {settings.attempts})") from None

    def _download(
        self, url: str, partial: _Partial, max_bytes: int, deadline: Deadline, headers: dict[str, str]
    ) -> Fetched:
        headers = headers | partial.headers()
        try:
            with (
                self._hosts.turn(httpx.URL(url).netloc.decode(), deadline),
                self._client().stream("GET", url, headers=headers, timeout=self._timeout(deadline)) as answer,
            ):
                self._check_answer(answer, max_bytes)
                if not _goes_on(answer, partial):
                    partial.begin(_validator(answer))
                return _save(answer, partial, max_bytes, deadline)
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise Refused("fetch_failed", f"its redirects lead nowhere: {error}") from None
        except httpx.InvalidURL as error:
            raise Refused("not_found", f"its URL is not valid: {error}") from None
        except httpx.HTTPError as error:
            raise Passing(f"{type(error).__name__}: {error}") from None

    def _timeout(self, deadline: Deadline) -> float:
        return max(0.1, min(self._settings.timeout_s, deadline.left_s))

    def _check_answer(self, answer: httpx.Response, max_bytes: int) -> None:
        status = f"{answer.status_code} {answer.reason_phrase}"
        if answer.status_code in _GONE:
            raise Refused("not_found", f"the server says {status}", "take it off the list, or find its new place")
        if answer.status_code in _PASSING or answer.is_server_error:
            wait_s = _retry_after(answer)
            asked = answer.history[0].url if answer.history else answer.url
            self._hosts.rest(asked, min(wait_s, self._settings.longest_wait_s))
            raise Passing(f"the server says {status}", wait_s)
        if answer.status_code == 416:
            raise Passing("the server no longer has the rest of the file")
        if answer.status_code in (401, 403):
            raise Refused("login_needed", f"the server says {status}")
        if not answer.is_success:
            raise Refused("fetch_failed", f"the server says {status}")
        if self._honour_noai and _reserves_from_ai(answer):
            raise Refused("noai", "its server sends `X-Robots-Tag: noai`")
        length = _content_length(answer)
        if length is not None and length > max_bytes:
            raise _too_large(f"{length} bytes", max_bytes)


@functools.cache
def _tls() -> ssl.SSLContext:
    """Reading all the world's certificates takes a while: once is enough."""
    return httpx.create_ssl_context()


def local_path(uri: str) -> Path | None:
    """The path on this machine; None for a URL of any scheme but `file:`."""
    if uri.startswith("file://"):
        return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))
    return None if "://" in uri else Path(uri)


def beside(uri: str, relative: str) -> str:
    """The URI of a file that stands beside another.

    Args:
        uri: Of the main file.
        relative: Its path relative to the main file's folder.
    """
    local = local_path(uri)
    return urljoin(uri, quote(relative)) if local is None else str(local.parent / relative)


def _local_file(path: Path, max_bytes: int) -> Fetched:
    # os.path: a name too long or with a zero byte is no file either, and no fault of the machine.
    if not os.path.exists(path):
        raise Refused("not_found", "there is no such file")
    if not os.path.isfile(path):
        raise Refused("not_found", "it is a folder or a device, not a file", "give the folder itself as the source")
    num_bytes = path.stat().st_size
    if num_bytes > max_bytes:
        raise _too_large(f"{num_bytes} bytes", max_bytes)
    with path.open("rb") as file:
        return Fetched(path, num_bytes, hashlib.file_digest(file, "sha256").hexdigest())


def _save(answer: httpx.Response, partial: _Partial, max_bytes: int, deadline: Deadline) -> Fetched:
    with partial.path.open("ab") as file:
        # As the network gives it: a block size would wait for a block to fill, past the deadline.
        for block in answer.iter_bytes():
            if partial.num_bytes == 0:
                raise_if_web_page(block)
            if partial.num_bytes + len(block) > max_bytes:
                raise _too_large(f"more than {max_bytes} bytes", max_bytes)
            if deadline.left_s < 0:
                raise Refused("fetch_failed", f"only {partial.num_bytes} bytes came before the deadline",
                              "run again later, or raise --fetch.deadline_s")  # fmt: skip
            file.write(block)
            partial.digest.update(block)
            partial.num_bytes += len(block)
    return Fetched(partial.path, partial.num_bytes, partial.digest.hexdigest())


def _goes_on(answer: httpx.Response, partial: _Partial) -> bool:
    """Whether the answer is the rest of what has come so far."""
    begins = answer.headers.get("Content-Range", "").startswith(f"bytes {partial.num_bytes}-")
    return answer.status_code == 206 and begins and partial.num_bytes > 0 and _validator(answer) == partial.validator


def _validator(answer: httpx.Response) -> str:
    """A strong ETag, by RFC 9110 the only one that a range may be joined by; a date changes too seldom."""
    etag = str(answer.headers.get("ETag", ""))
    return etag if etag.startswith('"') else ""


def _too_large(found: str, max_bytes: int) -> Refused:
    return Refused("too_large", f"it has {found}; the limit is {max_bytes}")


def _content_length(answer: httpx.Response) -> int | None:
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else None


def _retry_after(answer: httpx.Response) -> float:
    """Seconds; a date there is rare and is passed over."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0


def _reserves_from_ai(answer: httpx.Response) -> bool:
    words = ",".join(answer.headers.get_list("X-Robots-Tag")).lower().replace(":", ",").split(",")
    return any(word.strip() in _OPT_OUT for word in words)
