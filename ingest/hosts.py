"""Manners towards hosts: not too many requests at once, rest when they ask for it, and none to private networks."""

import contextlib
import ipaddress
import socket
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator

import httpx

from ingest.refused import Passing, Refused


class Hosts:
    """Who is being asked, by host and port. Safe to share between threads."""

    def __init__(self, per_host: int) -> None:
        """Nobody is asked yet.

        Args:
            per_host: Requests under way to one host at once.
        """
        self._turns: defaultdict[str, threading.BoundedSemaphore] = defaultdict(
            lambda: threading.BoundedSemaphore(per_host)
        )
        self._resting_until: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def turn(self, host: str, deadline: float) -> Iterator[None]:
        """Wait for one's turn, and for the end of the rest that the host asked for.

        Args:
            host: With port, as in a URL.
            deadline: Of `time.monotonic`.

        Raises:
            Passing: The turn does not come before the deadline.
        """
        with self._lock:
            turns = self._turns[host]
        if not turns.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Passing(f"{host} was busy with other downloads until the deadline")
        try:
            rest_s = self._resting_until.get(host, 0.0) - time.monotonic()
            if rest_s > max(0.0, deadline - time.monotonic()):
                raise Passing(f"{host} asked for {rest_s:.0f} s of rest, past the deadline")
            time.sleep(max(0.0, rest_s))
            yield
        finally:
            turns.release()

    def rest(self, url: httpx.URL, seconds: float) -> None:
        """Send nothing to the URL's host for so long: it said so by `Retry-After`."""
        if seconds > 0:
            host = url.netloc.decode()
            self._resting_until[host] = max(self._resting_until.get(host, 0.0), time.monotonic() + seconds)


def refuse_private(request: httpx.Request) -> None:
    """Before a request: refuse hosts of this machine and of private networks.

    Raises:
        Refused: It is one.
    """
    host = request.url.host
    if is_private(host) or (not _goes_by_proxy(request.url) and any(map(is_private, _addresses(host)))):
        raise _private(host)


def refuse_rebound(answer: httpx.Response) -> None:
    """After an answer's header: refuse it if the name led elsewhere when it was looked up again.

    Raises:
        Refused: The peer is in a private network.
    """
    if _goes_by_proxy(answer.request.url):
        return
    peer = answer.extensions["network_stream"].get_extra_info("server_addr")
    if peer and is_private(str(peer[0])):
        raise _private(answer.request.url.host)


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
