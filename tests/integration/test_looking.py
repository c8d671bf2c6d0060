"""Commands that only look: state on disk is the daemon's and the launchers' to write, and looking needs neither."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest
from support.installation import Installation, installation

SQLITES_OWN = {".moat", ".moat/audit.db-shm", ".moat/audit.db-wal"}  # whoever reads takes a lock (sqlite.org/walformat)
LOOKS = (
    "list", "list -a --json", "status", "logs done", "logs -n 1 -t done", "trace done", "trace --summary done",
    "wait done", "grant list", "grant show github", "snapshot list work", "volume list", "sessions work",
    "image list", "plugins list", "plugins info github", "proxy status", "proxy logs", "clean --dry-run",
    "init --schema", "completion zsh", "audit", "audit done", "audit verify", "audit key",
)  # fmt: skip


@pytest.fixture(scope="module")
def moat() -> Iterator[Installation]:
    with installation() as made:
        made.file("work/file", "")
        made.grant("github", "ghp_" + "a" * 36)
        made.ok("run", "-d", "work", "--runtime", "process", "--name", "done", "--", "echo", "said")
        made.ok("wait", "done")
        made.close()
        yield made


def kept(moat: Installation) -> dict[str, tuple[int, int]]:
    found = [moat.home / ".moat", *(moat.home / ".moat").rglob("*")]
    return {str(each.relative_to(moat.home)): (each.stat().st_mtime_ns, each.stat().st_size) for each in found}


@pytest.mark.parametrize("words", LOOKS)
def test_a_command_that_looks_writes_nothing_and_starts_no_daemon(moat: Installation, words: str) -> None:
    before = kept(moat)

    moat.ok(*shlex.split(words))

    after = kept(moat)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed <= (SQLITES_OWN if words.startswith("audit") else set())
    assert moat.daemon_pid() == 0
