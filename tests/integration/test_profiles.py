"""Two sets of credentials for one service, spent at once by two commands, on one daemon."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.installation import Installation, end, installation
from support.upstream import running_upstream

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]
SECRETS = {"work": "gho_s3cr3t_of_work", "play": "gho_s3cr3t_of_play"}
ASK = "echo ready; while read name; do curl -s -o /dev/null https://api.github.com/$name; echo done; done"


@pytest.fixture
def moat() -> Iterator[Installation]:
    with installation() as made:
        made.file("here/x", "")
        for profile, secret in SECRETS.items():
            words = ("grant", "--profile", profile, "github", "--with-token", "--no-validate")
            made.ok(*words, input=secret.encode())
        yield made


@contextmanager
def asking(moat: Installation, *flags: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A live run that asks for the paths it is told."""
    words = ("run", "here", "--runtime", "bubblewrap", "--grant", "github", *flags, "--", "sh", "-c", ASK)
    process = moat.start(*words, stdin=subprocess.PIPE, env=env)
    try:
        assert _line(process) == b"ready\n", (process.communicate()[1], moat.logs())
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.stdin = None  # communicate() would flush it
        end(process)


def test_a_flag_and_a_variable_choose_whose_credential_each_run_spends(moat: Installation) -> None:
    with running_upstream() as upstream:
        roots = moat.file(".moat/roots.pem", upstream.ca_pem)
        pins = upstream.pins("api.github.com")
        moat.configure({"upstream": {"ca_bundle": str(roots), "resolve": pins, "allow_cidrs": ["127.0.0.0/8"]}})
        with asking(moat, "--profile", "work") as work, asking(moat, MOAT_PROFILE="play") as play:
            daemon = moat.daemon_pid()
            for name, run in (("work", work), ("play", play)) * 3:
                assert run.stdin is not None
                run.stdin.write(f"{name}\n".encode())
                run.stdin.flush()
                assert _line(run) == b"done\n"
            runs = json.loads(moat.ok("list", "--json"))

        spent = {(each.path, each.header("Authorization")) for each in upstream.seen}
    assert spent == {(f"/{name}", f"Bearer {secret}") for name, secret in SECRETS.items()}
    assert len(upstream.seen) == 6
    assert sorted(run["state"] for run in runs) == ["running", "running"]
    assert moat.daemon_pid() == daemon


def _line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()
