"""`moat trace -f` of a real run: over a daemon that is replaced, and one that is killed, until the run is over."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import IO

import pytest
from support.installation import Installation, end, eventually, installation
from support.places import sandboxes_work

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not sandboxes_work(), reason="bubblewrap is not installed or may not make sandboxes here"),
]
ASK = "while read path; do curl -sS --max-time 60 --retry 9 http://a.example/$path >/dev/null; done"


@pytest.fixture
def moat() -> Iterator[Installation]:
    with installation() as made:
        yield made


class Lines:
    """What a process prints, line by line."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._reading = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reading.start()

    def path(self) -> str:
        """Return the next path, but for what came before the next daemon had opened the run: curl asks again."""
        while (told := json.loads(self._lines.get(timeout=60)))["error"] == "not-open":
            pass
        return str(told["path"])

    def rest(self) -> list[bytes]:
        """Return what is left once the process has ended."""
        self._reading.join(60)
        return list(self._lines.queue)

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._lines.put(line)


def ask(run: subprocess.Popen[bytes], path: str) -> None:
    assert run.stdin is not None
    run.stdin.write(f"{path}\n".encode())
    run.stdin.flush()


@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_a_run_is_followed_over_its_daemon(moat: Installation, how: str) -> None:
    flags = ("--runtime", "bubblewrap", "--policy", "strict", "--name", "followed")
    work = moat.file("work/.made", "").parent
    run = moat.start("run", work, *flags, "--", "sh", "-c", ASK, stdin=subprocess.PIPE)
    started = [run]
    try:
        eventually("the run is there", lambda: b"followed" in moat.run("list").stdout)
        following = moat.start("trace", "followed", "-f", "--json", stderr=subprocess.STDOUT)
        started.append(following)
        assert following.stdout is not None
        lines = Lines(following.stdout)
        ask(run, "before")
        assert lines.path() == "/before"

        before = moat.daemon_pid()
        if how == "restarted":
            moat.ok("proxy", "restart")
        else:
            os.kill(before, signal.SIGKILL)
        eventually("another daemon is there", lambda: moat.daemon_pid() not in (0, before))

        eventually("the run is back", lambda: b"running" in moat.run("list").stdout)
        ask(run, "after")
        assert lines.path() == "/after"
        run.communicate(timeout=60)
        assert run.returncode == 0
        assert following.wait(60) == 0
        assert lines.rest() == []
    finally:
        for process in started:
            end(process)
