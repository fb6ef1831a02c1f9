"""As much of Redis' protocol as is needed: commands out, replies of any shape back."""

import socket


known: dict[str, str] = {}


def connect(host: str, timeout: float) -> socket.socket:
    """The address is looked up once, and again when nobody is there: a service of a swarm keeps its address."""
    if host in known:
        try:
            return socket.create_connection((known[host], 6379), timeout=timeout)
        except OSError:
            del known[host]
    connection = socket.create_connection((host, 6379), timeout=timeout)
    known[host] = connection.getpeername()[0]
    return connection


class Redis:
    def __init__(self, host: str, timeout: float) -> None:
        self.connection = connect(host, timeout)
        self.replies = self.connection.makefile("rb")

    def __enter__(self) -> "Redis":
        return self

    def __exit__(self, *_: object) -> None:
        self.replies.close()
        self.connection.close()

    def __call__(self, *words: object):
        parts = [str(word).encode() for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.connection.sendall(request)
        return self.reply()

    def reply(self):
        line = self.replies.readline().rstrip(b"\r\n")
        if not line:
            raise ConnectionError("the connection has ended")
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest.decode()
        if int(rest) < 0:
            return None
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return self.replies.read(int(rest) + 2)[:-2].decode()
