"""Notes over HTTP: GET / lists them, POST / adds the body as one. `app.py check` asks the running one whether it is well."""

import json
import os
import subprocess
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = "/run/secrets/db_password"
SCHEMA = "CREATE TABLE IF NOT EXISTS note (id serial PRIMARY KEY, text text NOT NULL)"
LIST = "SELECT coalesce(json_agg(json_build_object('id', id, 'text', text) ORDER BY id), '[]') FROM note"
ADD = "INSERT INTO note (text) VALUES (:'text') RETURNING id"


def query(sql: str, **variables: str) -> str:
    """Runs one statement with psql, which quotes the variables."""
    with open(SECRET, encoding="utf-8") as secret:
        environment = {**os.environ, "PGPASSWORD": secret.read().strip()}
    arguments = [f"--set={name}={value}" for name, value in variables.items()]
    command = ["/usr/local/bin/psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
               "--set=ON_ERROR_STOP=1", *arguments]
    done = subprocess.run(command, input=sql, env=environment, capture_output=True, text=True, timeout=5)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout.strip()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(lambda: json.loads(query(LIST)))

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.answer(lambda: {"id": int(query(ADD, text=text))})

    def answer(self, work) -> None:
        try:
            status, value = 200, work()
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
            status, value = 503, {"error": str(error)}
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if sys.argv[1:] == ["check"]:
    urllib.request.urlopen("http://127.0.0.1:8000/", timeout=4)
else:
    query(SCHEMA)
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
