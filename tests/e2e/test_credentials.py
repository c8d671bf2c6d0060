"""Each run spends its own credential and holds none: runs with different ones at once, and what can be read inside."""

from __future__ import annotations

import subprocess

from support.places import Place
from support.services import expected

API = "https://api.github.com"
ROUNDS = 15


def test_two_runs_with_different_credentials_for_one_host_are_never_mixed(place: Place) -> None:
    first_path, second_path = place.fresh_path("first"), place.fresh_path("second")
    second_secret = f"{place.secret}-second"
    place.services.secrets.add(second_secret)
    try:
        first = _start_asking(place, first_path)
        place.installation.grant("github", second_secret)
        second = _start_asking(place, second_path)
        outputs = _go(first, second)
    finally:
        place.installation.grant("github", place.secret)

    assert [output.count(b'"ok": true') for output in outputs] == [ROUNDS, ROUNDS]
    assert _spent(place, first_path) == {expected("api.github.com", place.secret)}
    assert _spent(place, second_path) == {expected("api.github.com", second_secret)}


def test_a_credential_that_the_agent_brings_is_replaced_on_the_granted_host(place: Place) -> None:
    path = place.fresh_path("brought")

    place.ok("curl", "-sS", "-H", "Authorization: Bearer stolen", API + path)

    place.assert_spent(path)


def test_a_run_without_the_grant_gets_no_credential(place: Place) -> None:
    path = place.fresh_path("ungranted")
    workspace = place.workspace()

    place.installation.ok("run", workspace, "--runtime", place.runtime, "--", "curl", "-sS", API + path)

    assert [each.header("Authorization") for each in place.services.asked(path)] == [None]


def test_nothing_that_can_be_read_inside_holds_the_credential(place: Place) -> None:
    script = (
        "env; cat /proc/self/environ /proc/1/environ /proc/*/cmdline 2>/dev/null;"
        " find / -xdev -type f -newer /etc/hostname -size -1000k -not -path '/proc/*' -not -path '/sys/*'"
        " -not -path '/usr/*' -not -path '/opt/*' -exec cat {} + 2>/dev/null;"
        " cat /etc/moat/* /etc/hosts /etc/resolv.conf; find / -xdev -name '*.key' -path '*moat*' 2>/dev/null; true"
    )

    output = place.ok("sh", "-c", script)

    assert "GH_TOKEN=" in output
    assert "s3cr3t" not in output
    assert "PRIVATE KEY" not in output


def _start_asking(place: Place, path: str) -> subprocess.Popen[bytes]:
    """Start a run that waits for a line and then asks for path again and again, on a fresh connection each time."""
    script = f"echo ready; read go; for i in $(seq {ROUNDS}); do curl -sS {API}{path}; echo; done"
    run = place.start("sh", "-c", script, stdin=subprocess.PIPE)
    assert run.stdout is not None
    line = run.stdout.readline()
    assert line == b"ready\n", run.communicate(timeout=30)
    return run


def _go(*runs: subprocess.Popen[bytes]) -> list[bytes]:
    for run in runs:
        assert run.stdin is not None
        run.stdin.write(b"go\n")
        run.stdin.flush()
    return [run.communicate(timeout=60)[0] for run in runs]


def _spent(place: Place, path: str) -> set[str | None]:
    return {each.header("Authorization") for each in place.services.asked(path)}
