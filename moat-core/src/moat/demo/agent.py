"""What the demo runs in the sandbox: an "agent" that works, then tries everything that must not work.

Runs alone inside, with whatever Python is there: standard library only, nothing of moat. Prints one JSON object.

    argv[1]: {"api": host, "path": …, "refused": host, "canaries": [[address, port], …], "abstract": name}
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import re
import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

KEY = re.compile(rb"moat_demo_key_[0-9a-f]{32}")  # what a leaked key would look like; the key itself is not known here
BIG_BYTES = 4_000_000
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "dev", "sys")  # the host's own programs
TIMEOUT_S = 10


def politely(url: str) -> tuple[int, str]:
    """Return status and text of a request by a client that reads the proxy variables."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 # the demo's own https URLs
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as failure:
        return failure.code, failure.read().decode()
    except OSError as failure:  # a refused CONNECT: "Tunnel connection failed: 403 Forbidden"
        return 0, str(failure)


def stubbornly(host: str, path: str) -> int | str:
    """Return the status of a request by a client that never heard of proxies."""
    connection = http.client.HTTPSConnection(host, timeout=TIMEOUT_S, context=ssl.create_default_context())
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except OSError as failure:
        return str(failure)
    finally:
        connection.close()


def reaches(address: str, port: int) -> bool:
    """Return whether a connection that goes around the proxy comes about."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.settimeout(2)
        return sock.connect_ex((address, port)) == 0


def reaches_abstract(name: str) -> bool:
    """Return whether an abstract unix socket of the host can be connected to."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex("\0" + name) == 0


def readable() -> Iterator[pathlib.Path]:
    """Yield every file that this run can read and that is not a program of the host, and what /proc tells."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        yield from (process / "environ", process / "cmdline", process / "mountinfo")
    roots = [entry for entry in pathlib.Path("/").iterdir() if entry.name not in (*SYSTEM, "proc")]
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = [] if folder == sys.base_prefix else folders  # the host's Python, should it not be in /usr
            yield from (pathlib.Path(folder, name) for name in names)


def search() -> dict[str, object]:
    """Return how many variables and files were searched, and where a key was found."""
    found = [os.fsdecode(name) for name, value in os.environb.items() if KEY.search(value)]
    count = 0
    for path in readable():
        try:
            if path.is_file() and path.stat().st_size <= BIG_BYTES:
                count += 1
                found += [str(path)] if KEY.search(path.read_bytes()) else []
        except OSError:
            continue
    return {"variables": len(os.environ), "files": count, "found": found}


def main() -> None:
    """Do it all."""
    task = json.loads(sys.argv[1])
    status, body = politely(f"https://{task['api']}{task['path']}")
    print(  # noqa: T201 # its output is its report
        json.dumps(
            {
                "placeholder": os.environ.get("ACME_TOKEN", ""),
                "status": status,
                "body": body,
                "search": search(),
                "reached": [f"{host} port {port}" for host, port in task["canaries"] if reaches(host, port)]
                + (["an abstract unix socket"] if reaches_abstract(task["abstract"]) else []),
                "stubborn": stubbornly(task["api"], task["path"]),
                "refused": politely(f"https://{task['refused']}/"),
            }
        )
    )


if __name__ == "__main__":
    main()
