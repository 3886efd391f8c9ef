"""Stands between a client and a server of HTTP, and lets requests fail in the ways in which networks and servers do."""

import contextlib
import http.client
import http.server
import random
import socket
import ssl
import threading
import time
from collections import Counter
from pathlib import Path

STATUSES = {"429": 429, "500": 500, "502": 502, "503": 503}
# What becomes of a request. "refused": the connection ends before the server sees it; "lost": the server does it, and the answer
# never comes; "cut": the answer ends in the middle; "short": it tells a length that it has not; "stalled": it stops in the middle, and
# nothing ends; "garbage": a listing is answered with a page of something else.
FAULTS = ("refused", "lost", "cut", "short", "stalled", "garbage", *STATUSES)
# Longer than the client waits.
STALL_SECONDS = 12


class FaultProxy:
    """
    Serves on `port`, and passes on to the server's port. `share` of all requests fail; each waits for `latency` seconds first.
    With a certificate, and its key in the same file, it speaks TLS.
    """

    def __init__(
        self, server: int, share: float = 0.0, seed: int = 0, latency: float = 0.0, certificate: Path | None = None
    ) -> None:  # fmt: skip
        self.server, self.share, self.latency = server, share, latency
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.requests = 0
        self.faults: Counter[str] = Counter()
        handler = type("BoundHandler", (Handler,), {"proxy": self})
        self._listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._listener.daemon_threads = True
        if certificate:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            # Each connection shakes hands on its own thread.
            self._listener.handle_error = lambda *_: None  # a client that does not trust the certificate
            self._listener.socket = tls.wrap_socket(self._listener.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()

    def choose(self, possible: tuple[str, ...]) -> str:
        """What becomes of the next request: nothing, or of what can happen to it that which has come up least so far."""
        with self.lock:
            self.requests += 1
            if self.random.random() >= self.share:
                return ""
            return min(possible, key=lambda fault: (self.faults[fault], self.random.random()))

    def count(self, fault: str) -> None:
        with self.lock:
            self.faults[fault] += 1


class Handler(http.server.BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_arguments: object) -> None:
        pass

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        time.sleep(self.proxy.latency)
        fault = self.proxy.choose(self.possible_faults())
        if fault in STATUSES:
            self.proxy.count(fault)
            return self.answer(STATUSES[fault], {"content-type": "text/html"}, b"<html>not now</html>")
        if fault == "refused":
            self.proxy.count(fault)
            return self.end()
        try:
            status, headers, answer = self.forward(body)
        except (OSError, http.client.HTTPException):  # a server that is stopped, say
            return self.end()
        if fault == "garbage":
            answer = b"<html><body>Welcome to the hotel's network</body></html>"
            headers["content-length"] = str(len(answer))
        if fault in ("cut", "short", "stalled") and not (status in (200, 206) and len(answer) > 1):
            fault = "lost"
        if fault:
            self.proxy.count(fault)
        if fault == "lost":
            return self.end()
        if fault == "short":
            answer = answer[:-1]
            headers["content-length"] = str(len(answer))
        if fault in ("cut", "stalled"):
            self.answer(status, headers, answer[: len(answer) // 2])
            if fault == "stalled":
                time.sleep(STALL_SECONDS)
            return self.end()
        self.answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

    def possible_faults(self) -> tuple[str, ...]:
        impossible = set()
        if "list-type=2" not in self.path:
            impossible.add("garbage")
        if self.command != "GET":
            impossible |= {"cut", "stalled"}
        if "range" not in self.headers:  # nothing in the answer would tell
            impossible.add("short")
        return tuple(fault for fault in FAULTS if fault not in impossible)

    def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        server = http.client.HTTPConnection("127.0.0.1", self.proxy.server, timeout=60)
        server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # among them the host, which is signed
            if name.lower() not in ("connection", "expect"):
                server.putheader(name, value)
        server.endheaders(body)
        response = server.getresponse()
        answer = response.read()
        headers = {name.lower(): value for name, value in response.getheaders()}
        for name in ("connection", "transfer-encoding", "keep-alive"):
            headers.pop(name, None)
        if self.command != "HEAD":
            headers["content-length"] = str(len(answer))
        server.close()
        return response.status, headers, answer

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        headers.setdefault("content-length", str(len(body)))
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def end(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
