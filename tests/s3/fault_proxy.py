"""Stands between a client and a server of HTTP, and lets requests fail in the ways in which networks and servers do."""

import contextlib
import http.client
import http.server
import os
import random
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

STATUSES = {"408": 408, "429": 429, "500": 500, "502": 502, "503": 503, "504": 504}
# What becomes of a request. "refused": the connection ends before the server sees it; "reset": so it does, and at once; "unread":
# its body is not read to the end, and nothing ends; "lost": the server does it, and the connection ends before the answer; "silent":
# the answer never comes, and nothing ends; "cut": the answer ends in the middle; "stalled": it stops there, and nothing ends;
# "short": it is shorter than what was asked for, and says so; "garbage": in its place comes a page of something else.
FAULTS = ("refused", "reset", "unread", "lost", "silent", "cut", "stalled", "short", "garbage", *STATUSES)
# More than the sockets take between client and proxy.
LARGE_BODY = 4 << 20


class FaultProxy:
    """
    Serves on `port`, and passes on to the server's port. `share` of all requests fail, and at the beginning more, until each fault has
    come up; each waits for `latency` seconds first.
    What stalls ends after `stall` seconds, if the client waits so long. With a certificate, and its key in the same file, it speaks
    TLS.
    """

    def __init__(
        self, server: int, share: float = 0.0, seed: int = 0, latency: float = 0.0, stall: float = 12,
        certificate: Path | None = None,
    ) -> None:  # fmt: skip
        self.server, self.share, self.latency, self.stall = server, share, latency, stall
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.requests = 0
        self.has_failed = False  # the last one
        self.faults: Counter[str] = Counter()
        handler = type("BoundHandler", (Handler,), {"proxy": self})
        self._listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._listener.daemon_threads = True
        self._listener.handle_error = self.handle_error
        if certificate:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            # Each connection shakes hands on its own thread.
            self._listener.socket = tls.wrap_socket(self._listener.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, daemon=True).start()

    def handle_error(self, *_connection: object) -> None:
        """Of a connection that the client has given up, there is nothing to tell."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()

    def close(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()

    def choose(self, possible: tuple[str, ...]) -> str:
        """
        What becomes of the next request: nothing, or of what can happen to it that which has come up least so far. What has never come up
        does so at every other request that it can happen to.
        """
        with self.lock:
            self.requests += 1
            rarest = min(possible, key=lambda fault: (self.faults[fault], self.random.random()))
            is_due = self.share > 0 and self.faults[rarest] == 0 and not self.has_failed
            self.has_failed = is_due or self.random.random() < self.share
            return rarest if self.has_failed else ""

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
        length = int(self.headers.get("content-length", 0))
        fault = self.proxy.choose(self.possible_faults(length))
        if fault == "unread":
            self.proxy.count(fault)
            self.rfile.read(length // 16)
            time.sleep(self.proxy.stall)
            return self.end()
        body = self.rfile.read(length)
        time.sleep(self.proxy.latency)
        if fault in STATUSES:
            self.proxy.count(fault)
            return self.answer(STATUSES[fault], {"content-type": "text/html"}, b"<html>not now</html>")
        if fault in ("refused", "reset"):
            self.proxy.count(fault)
            return self.end() if fault == "refused" else self.reset()
        try:
            status, headers, answer = self.forward(body)
        except (OSError, http.client.HTTPException):  # a server that is stopped, say
            return self.end()
        if fault == "garbage":
            status, answer = 200, b"<html><body>Welcome to the hotel's network</body></html>"
            headers = {"content-type": "text/html"}
        if fault in ("cut", "short", "stalled") and not (status in (200, 206) and len(answer) > 1):
            fault = "lost"
        if fault:
            self.proxy.count(fault)
        if fault in ("lost", "silent"):
            if fault == "silent":
                time.sleep(self.proxy.stall)
            return self.end()
        if fault == "short":
            answer = answer[:-1]
            headers["content-length"] = str(len(answer))
        if fault in ("cut", "stalled"):
            self.answer(status, headers, answer[: len(answer) // 2])
            if fault == "stalled":
                time.sleep(self.proxy.stall)
            return self.end()
        self.answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

    def possible_faults(self, length: int) -> tuple[str, ...]:
        impossible = set()
        if length < LARGE_BODY:
            impossible.add("unread")
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

    def reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def end(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
