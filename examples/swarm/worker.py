"""Writes visits from Redis to PostgreSQL, in batches.

An entry of the stream is acknowledged after it has been committed, and what another worker took and did not acknowledge
within five seconds is taken over: a worker may be lost at any time. Written twice, it is still one row.
"""

import os
import socket
import subprocess
import time

from redis import Redis

NAME = socket.gethostname()
SCHEMA = "CREATE TABLE IF NOT EXISTS visit (id text PRIMARY KEY, answered_by text NOT NULL)"


def execute(sql: str) -> None:
    with open("/run/secrets/db_password", encoding="utf-8") as secret:
        environment = {**os.environ, "PGPASSWORD": secret.read().strip()}
    command = ["/usr/local/bin/psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    subprocess.run(command, input=sql, env=environment, text=True, timeout=10, check=True)


def work(redis: Redis) -> None:
    try:
        redis("XGROUP", "CREATE", "visits", "workers", "0", "MKSTREAM")
    except RuntimeError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise
    while True:
        taken = redis("XAUTOCLAIM", "visits", "workers", NAME, 5000, "0", "COUNT", 1000)[1]
        read = redis("XREADGROUP", "GROUP", "workers", NAME, "COUNT", 1000, "BLOCK", 1000, "STREAMS", "visits", ">")
        entries = taken + (read[0][1] if read else [])
        if entries:
            # Stream ids are digits and a dash, hosts' names have no quotes.
            rows = ", ".join(f"('{entry}', '{fields[1]}')" for entry, fields in entries)
            execute(f"INSERT INTO visit VALUES {rows} ON CONFLICT DO NOTHING")
            redis("XACK", "visits", "workers", *[entry for entry, _ in entries])
            print(f"wrote {len(entries)} visits", flush=True)
        time.sleep(0.5)  # a batch is cheaper than a row


execute(f"SET client_min_messages = warning; {SCHEMA}")
while True:
    try:
        with Redis("cache", timeout=5) as connection:
            work(connection)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"trying again: {error}", flush=True)
        time.sleep(1)
