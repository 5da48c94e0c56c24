"""Manners towards hosts: not too many requests at once, rest when they ask for it, and none to private networks."""

import contextlib
import ipaddress
import socket
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator

import httpx

from ingest.refused import Passing, Refused


class Deadline:
    """When a file has to be here."""

    def __init__(self, seconds: float) -> None:
        """So many seconds from now."""
        self._at = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds until then; negative afterwards."""
        return self._at - time.monotonic()

    def extend(self, seconds: float) -> None:
        """Put it off."""
        self._at += seconds


class Hosts:
    """Who is being asked, by host and port. Safe to share between threads."""

    def __init__(self, per_host: int) -> None:
        """Nobody is asked yet.

        Args:
            per_host: Requests under way to one host at once.
        """
        self._turns: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(per_host))
        self._resting_until: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def turn(self, host: str, deadline: Deadline) -> Iterator[None]:
        """Wait for one's turn, which puts the deadline off; then for the end of the rest that the host asked for.

        Args:
            host: With port, as in a URL.
            deadline: Of the download.

        Raises:
            Passing: The rest lasts longer than the deadline.
        """
        with self._lock:
            turns = self._turns[host]
        began = time.monotonic()
        with turns:
            deadline.extend(time.monotonic() - began)
            rest_s = self._resting_until.get(host, 0.0) - time.monotonic()
            if rest_s > deadline.left_s:
                raise Passing(f"{host} asked for {rest_s:.0f} s of rest, past the deadline")
            if rest_s > 0:
                time.sleep(rest_s)
            yield

    def rest(self, url: httpx.URL, seconds: float) -> None:
        """Send nothing to the URL's host for so long: it said so by `Retry-After`."""
        if seconds > 0:
            host = url.netloc.decode()
            self._resting_until[host] = max(self._resting_until.get(host, 0.0), time.monotonic() + seconds)


class Private:
    """Keeps requests out of private networks."""

    def __init__(self, allowed: str = "") -> None:
        """Refuse all but some.

        Args:
            allowed: Hosts with their ports that may be asked all the same, by commas.
        """
        self._allowed = frozenset(host.strip().lower() for host in allowed.split(",") if host.strip())

    @property
    def hooks(self) -> dict[str, list[Callable[..., None]]]:
        """For httpx."""
        return {"request": [self.refuse], "response": [self.refuse_rebound]}

    def refuse(self, request: httpx.Request) -> None:
        """Before a request: refuse hosts of this machine and of private networks.

        Raises:
            Refused: It is one.
        """
        host = request.url.host
        if request.url.scheme not in ("http", "https") or self._is_allowed(request.url):
            return  # of another scheme, httpx says what it is
        if is_private(host) or (not _goes_by_proxy(request.url) and any(map(is_private, _addresses(host)))):
            raise _private(host)

    def refuse_rebound(self, answer: httpx.Response) -> None:
        """After an answer's header: refuse it if the name led elsewhere when it was looked up again.

        Raises:
            Refused: The peer is in a private network.
        """
        url = answer.request.url
        if self._is_allowed(url) or _goes_by_proxy(url):
            return
        peer = answer.extensions["network_stream"].get_extra_info("server_addr")
        if peer and is_private(str(peer[0])):
            raise _private(url.host)

    def _is_allowed(self, url: httpx.URL) -> bool:
        return url.netloc.decode().lower() in self._allowed


def is_private(address: str) -> bool:
    """Whether an IP address is not one of the public internet; a name that is no address is not."""
    with contextlib.suppress(ValueError):
        ip = ipaddress.ip_address(address.partition("%")[0])
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return not (mapped or ip).is_global or ip.is_multicast
    return address.rstrip(".").lower() == "localhost" or address.lower().endswith(".localhost")


def _addresses(host: str) -> list[str]:
    """Of a name; none if it is not known, which the request will say better."""
    with contextlib.suppress(OSError, UnicodeError):
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    return []


def _goes_by_proxy(url: httpx.URL) -> bool:
    """The proxy looks up names then, and the peer is the proxy."""
    proxies = urllib.request.getproxies()
    return (url.scheme in proxies or "all" in proxies) and not urllib.request.proxy_bypass(url.host)


def _private(host: str) -> Refused:
    return Refused("private_address", f"{host[:200]} is not on the public internet")
