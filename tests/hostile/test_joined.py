"""While commands are brought into a live run of bubblewrap's, nobody inside ever sees a process that is freer."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.installation import USER, Installation, eventually, installation

pytestmark = [pytest.mark.bubblewrap, pytest.mark.timeout(120)]

# Looks at every process again and again, and tries to read the memory of who is about to be a command.
WATCH = """
import json, os
free, own = set(), os.getpid()
open("ready", "w").close()
while not os.path.exists("stop"):
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (1, own):
            continue
        try:
            told = open(f"/proc/{name}/status").read()
            status = dict(line.split(":\\t", 1) for line in told.splitlines() if ":\\t" in line)
            words = open(f"/proc/{name}/cmdline").read()
        except OSError:
            continue
        if status["State"].startswith(("Z", "X")):
            continue
        if "until-met" in words:
            open("met", "w").close()
        caged = (status["CapPrm"], status["CapEff"], status["CapInh"], status["CapBnd"], status["CapAmb"])
        if set(caged) != {"0" * 16} or status["NoNewPrivs"] != "1" or status["Seccomp"] != "2":
            free.add(told)
        if "join.py" in words:
            try:
                with open(f"/proc/{name}/mem", "rb"):
                    if open(f"/proc/{name}/cmdline").read() == words:  # else it had become the command meanwhile
                        free.add("memory of: " + words)
            except OSError:
                pass
json.dump(sorted(free), open("told", "w"))
"""


@pytest.fixture(params=["", USER], ids=["root", "a-user"])
def moat(request: pytest.FixtureRequest) -> Iterator[Installation]:
    with installation(request.param, MOAT_RUNTIME="bubblewrap") as made:
        made.file("work/watch.py", WATCH)
        yield made


def test_a_command_is_caged_before_anybody_inside_can_see_it(moat: Installation) -> None:
    work = moat.home / "work"
    moat.ok("run", "-d", "work", "--name", "watched", "--", "python3", "watch.py")
    eventually("somebody watches", (work / "ready").exists)

    for _ in range(4):
        moat.ok("exec", "watched", "--", "true")
    moat.ok("exec", "watched", "--", "sh", "-c", "until [ -e met ]; do sleep 0.05; done", "until-met")
    moat.file("work/stop", "")
    moat.run("wait", "watched")

    assert json.loads((work / "told").read_text()) == []
