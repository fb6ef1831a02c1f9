"""Answers visits: each becomes an entry of the stream `visits` in Redis before it is answered.

`app.py` serves on port 8000; `app.py check` asks the running one whether it is well.
"""

import os
import signal
import socket
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from redis import Redis

NAME, VERSION = socket.gethostname(), os.environ["VERSION"]


class Server(ThreadingHTTPServer):
    daemon_threads = False  # the end waits for the answers that are being given
    request_queue_size = 128


class Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self) -> None:
        try:
            with Redis("cache", timeout=3) as redis:
                if self.path == "/health":
                    return self.answer(200, redis("PING"))
                visit = redis("XADD", "visits", "*", "from", NAME)
            self.answer(200, f"app {VERSION} on {NAME}: visit {visit}")
        except (OSError, RuntimeError) as error:
            self.answer(503, f"the cache cannot be reached: {error}")

    def answer(self, status: int, text: str) -> None:
        body = text.encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """One line per visit would be too much."""


if sys.argv[1:] == ["check"]:
    urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=2)
else:
    server = Server(("", 8000), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.1)
    server.server_close()
