"""Counts visits in Redis. `app.py` serves on port 8000, `app.py check` asks the running one whether it is well."""

import os
import socket
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CACHE = (os.environ.get("CACHE_HOST", "cache"), 6379)
PAGE = "Hello from {host}!\nThis page was visited {visits} times.\n"


def redis(*words: str) -> bytes:
    """Sends one command and returns the first line of the reply, without its type."""
    request = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    with socket.create_connection(CACHE, timeout=2) as connection:
        connection.sendall(request.encode())
        reply = connection.makefile("rb").readline().rstrip()
    if reply[:1] == b"-":
        raise RuntimeError(reply.decode())
    return reply[1:]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        try:
            if self.path == "/health":
                redis("PING")
                self.answer(200, "well\n")
            else:
                visits = int(redis("INCR", "visits"))
                self.answer(200, PAGE.format(host=socket.gethostname(), visits=visits))
        except (OSError, RuntimeError) as error:
            self.answer(503, f"the cache cannot be reached: {error}\n")

    def answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if sys.argv[1:] == ["check"]:
    urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=2)
else:
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
