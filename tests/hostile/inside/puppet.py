"""A command that does what the test outside says, one JSON line at a time: the test's own hands inside the sandbox."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUIET_S, AFTER_WHOLE_S, ANSWER_S = 0.4, 0.03, 10.0
PROXY = ("127.0.0.1", 19080)
Words = dict[str, Any]


def main() -> None:
    """Obey until input ends."""
    actions: dict[str, Callable[[Words], Words]] = {
        "hello": lambda _: {"hello": "there"}, "exchange": exchange, "tunnel": tunnel, "shell": shell, "reach": reach,
        "bind": bind, "busy": busy, "write": write,
        "resolve": resolve,
    }  # fmt: skip
    for line in sys.stdin:
        words = json.loads(line)
        answer = actions[words["do"]](words)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def exchange(words: Words) -> Words:
    """Send bytes, collect what comes."""
    came = b""
    with socket.create_connection(tuple(words["to"]), ANSWER_S) as sock:
        for piece in words["pieces"]:
            sock.sendall(base64.b64decode(piece))
            came += everything_from(sock)
        if words.get("close"):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            came += everything_from(sock)
    return {"came": base64.b64encode(came).decode()}


def tunnel(words: Words) -> Words:
    """CONNECT (or a direct connection to `to`), TLS, and bytes."""
    with socket.create_connection(tuple(words.get("to") or PROXY), ANSWER_S) as sock:
        answer = "HTTP/1.1 200 nothing asked\r\n"
        if not words.get("to"):
            sock.sendall(f"CONNECT {words['connect']} HTTP/1.1\r\nHost: proxy.test\r\n\r\n".encode("latin-1"))
            answer = sock.recv(65_536).decode("latin-1")
        result: Words = {"connect": answer, "tls": "", "came": ""}
        if " 200 " not in answer.split("\r\n")[0]:
            return result
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with context.wrap_socket(sock, server_hostname=words["name"]) as secure:
                result["tls"] = str(secure.version())
                came = b""
                for piece in words["pieces"]:
                    secure.sendall(base64.b64decode(piece))
                    came += everything_from(secure, words.get("answers", 0))
                result["came"] = base64.b64encode(came).decode()
        except OSError as problem:
            result["tls"] = result["tls"] or f"failed: {problem}"
        return result


def everything_from(sock: socket.socket, answers: int = 0) -> bytes:
    """Read until a pause after something came, or the end. answers: how many are to come before a pause counts."""
    came, patience = b"", ANSWER_S
    with contextlib.suppress(OSError):
        while True:
            sock.settimeout(patience)
            data = sock.recv(65_536)
            if not data:
                break
            came += data
            if came.count(b"HTTP/1.1 ") >= answers:
                patience = AFTER_WHOLE_S if is_whole(came) else QUIET_S
    return came


def is_whole(came: bytes) -> bool:
    """Whether came ends with a whole answer."""
    head, separator, body = came.rpartition(b"HTTP/1.1 ")[2].partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: ([0-9]+)", head)
    return bool(separator) and length is not None and len(body) >= int(length[1])


def shell(words: Words) -> Words:
    """Run a program."""
    done = subprocess.run(words["argv"], capture_output=True, text=True, timeout=20, check=False)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def reach(words: Words) -> Words:
    """Try to connect somewhere; say how it went."""
    family = {"unix": socket.AF_UNIX, "4": socket.AF_INET, "6": socket.AF_INET6}[words["family"]]
    target = tuple(words["to"]) if isinstance(words["to"], list) else words["to"]
    with socket.socket(family) as sock:
        sock.settimeout(1)
        try:
            sock.connect(target)
        except OSError as problem:
            return {"outcome": str(problem)}
        return {"outcome": "connected"}


def resolve(words: Words) -> Words:
    """Look a name up as any program does."""
    try:
        return {"address": socket.getaddrinfo(words["name"], 443, socket.AF_INET)[0][4][0]}
    except OSError as problem:
        return {"address": "", "problem": str(problem)}


def bind(words: Words) -> Words:
    """Listen on an abstract socket and a path, for others to find."""
    for name in words["names"]:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(name)
        sock.listen()
        kept.append(sock)
    return {"bound": len(kept)}


def write(words: Words) -> Words:
    """Write a file."""
    Path(words["path"]).write_text(words["text"])
    return {"written": words["path"]}


def busy(words: Words) -> Words:
    """Leave a child that keeps asking, through the proxy and past it, and beats in a file as long as it lives."""
    if os.fork() == 0:
        with contextlib.suppress(BaseException):
            keep_busy(Path(words["beat"]), words["host"])
        os._exit(0)
    return {"busy": True}


def keep_busy(beat: Path, host: str) -> None:
    """Ask for ever."""
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    heart = os.open(beat, os.O_WRONLY)
    count = good = past = 0
    while True:
        count += 1
        with contextlib.suppress(OSError), socket.create_connection(PROXY, 2) as sock:
            sock.sendall(f"GET http://{host}/busy HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            sock.settimeout(5)
            good += b" 200 " in sock.recv(4096)
        for address in ("93.184.216.34", "127.0.0.1", "198.51.100.1"):
            with contextlib.suppress(OSError), socket.create_connection((address, 8080), 1):
                past += 1
        text = json.dumps({"count": count, "good": good, "past": past})
        os.pwrite(heart, text.ljust(100).encode(), 0)  # in one go: whoever kills us leaves a whole beat
        time.sleep(0.02)


kept: list[socket.socket] = []
main()
