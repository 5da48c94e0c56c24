"""A real HTTP server with faults, on a port of its own."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web:
    """What the server serves, and how often it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        """Path to content."""
        self.faults: dict[str, str] = {}
        """Path to the name of a fault; `503x2` is over after two answers."""
        self.asked: Counter[str] = Counter()
        self.tokens: dict[str, str] = {}
        """Path to the `Authorization` that it wants."""
        self.sent_tokens: Counter[tuple[str, str]] = Counter()
        """(path, `Authorization`) of requests that had one."""
        self.ranges: list[str] = []
        """The header of each request, in turn."""
        self.etags: dict[str, str] = {}
        """Path to the version; those that have one give parts of the file."""
        self.redirects: dict[str, str] = {}
        """Path to the URL where the file is, as a collection sends its readers on to where its files are stored."""
        self.latency_s = 0.0
        """Before each answer."""
        self.trickle_s = 0.02
        """Between the bytes of what is `slow`."""
        self.at_once = 0
        self.most_at_once = 0
        self.url = ""


@contextlib.contextmanager
def serve() -> Iterator[Web]:
    """Serve until the block ends."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            time.sleep(web.latency_s)
            if self.path in web.redirects:
                self._answer(302, b"", extra={"Location": web.redirects[self.path]})
                return
            self._answer(200 if self.path in web.files else 404, web.files.get(self.path, b""), with_body=False)

        def do_GET(self) -> None:  # noqa: PLR0912, PLR0915 - a branch a fault
            time.sleep(web.latency_s)
            web.asked[self.path] += 1
            web.ranges.append(self.headers.get("Range", ""))
            if token := self.headers.get("Authorization", ""):
                web.sent_tokens[self.path, token] += 1
            if web.tokens.get(self.path, token) != token:
                self._answer(401, b'{"detail": "no"}')
                return
            content = web.files.get(self.path)
            fault, _, times = web.faults.get(self.path, "").partition("x")
            if fault and times and web.asked[self.path] > int(times):
                fault = ""
            if fault.isdigit():
                self._answer(int(fault), b"<html>sorry</html>")
            elif fault == "cut":
                assert content
                self._answer(200, content[:-10], claimed=len(content))
                self.close_connection = True
            elif fault == "drop":
                self.close_connection = True
            elif fault == "busy":
                self._answer(503, b"", extra={"Retry-After": "30"})
            elif fault == "slow":
                self._trickle(content or b"")
            elif fault == "away":
                self._answer(302, b"", extra={"Location": "/file.glb"})
            elif fault == "round":
                self._answer(302, b"", extra={"Location": self.path})
            elif fault.startswith("to:"):
                self._answer(302, b"", extra={"Location": fault[3:]})
            elif fault == "half":
                half = content or b""
                self._answer(200, half[: len(half) // 2], claimed=len(half), extra={"ETag": web.etags[self.path]})
                self.close_connection = True
            elif fault == "wait":
                self._wait(content or b"")
            elif fault == "html":
                self._answer(200, b"<!DOCTYPE html><html>please log in</html>")
            elif fault == "wrong":
                self._answer(200, (content or b"") + b"    ")
            elif fault == "endless":
                self._endless(content or b"")
            elif fault == "noai":
                self._answer(200, content or b"", extra={"X-Robots-Tag": "otherbot: noindex, NoAI"})
            elif fault == "unsized":
                self._chunked(content or b"")
            elif self.path in web.redirects:
                self._answer(302, b"", extra={"Location": web.redirects[self.path]})
            elif content is None:
                self._answer(404, b"gone")
            elif self.path in web.etags:
                self._part(content, web.etags[self.path])
            else:
                self._answer(200, content)

        def _part(self, content: bytes, etag: str) -> None:
            """RFC 9110, 14: the rest if it is of the version that the client has, else the whole."""
            asked = self.headers.get("Range", "")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if not asked or self.headers.get("If-Range") != etag:
                self._answer(200, content, extra={"ETag": etag})
                return
            where = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._answer(206, content[start:], extra={"ETag": etag, "Content-Range": where})

        def _wait(self, content: bytes) -> None:
            web.at_once += 1
            web.most_at_once = max(web.most_at_once, web.at_once)
            time.sleep(0.1)
            web.at_once -= 1
            self._answer(200, content)

        def _answer(
            self,
            status: int,
            content: bytes,
            *,
            claimed: int | None = None,
            extra: dict[str, str] | None = None,
            with_body: bool = True,
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) if claimed is None else claimed))
            for key, value in (extra or {}).items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def _chunked(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):
                for start in range(0, len(content), 1000):
                    part = content[start : start + 1000]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.write(b"0\r\n\r\n")

        def _endless(self, content: bytes) -> None:
            """Until the client has had enough."""
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            part = content + bytes(1 << 16)
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

        def _trickle(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(web.trickle_s)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, *args: object) -> None:
            """Clients may leave as they like."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
