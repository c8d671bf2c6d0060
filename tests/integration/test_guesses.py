"""Wrong tokens at a real daemon's port are in the installation's audit: where from, how many, and never the token."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from support.installation import Installation, eventually, installation

GUESS = "s3cr3t-guess"  # the suite looks for s3cr3t in everything that moat wrote


@pytest.fixture
def moat() -> Iterator[Installation]:
    with installation() as made:
        made.ok("proxy", "start")
        yield made


def ask(moat: Installation, *urls: str, interface: str = "127.0.0.1", user: str = "") -> list[str]:
    """Ask at the port for runs with a token; return the statuses."""
    port = json.loads(moat.ok("proxy", "status", "--json"))["proxy_port"]
    who = ("--proxy-user", user) if user else ()
    argv = ["curl", "-sS", "--max-time", "60", "--interface", interface, "-w", "%{http_code}\n", *who]
    asked = [word for url in urls for word in ("-o", "/dev/null", url)]
    argv += ["--proxy", f"http://127.0.0.1:{port}", *asked]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.split()


def guessed(moat: Installation) -> list[dict[str, Any]]:
    entries = json.loads(moat.ok("audit", "--json"))
    return [told for each in entries if each["kind"] == "guessed" for told in each["facts"]["from"]]


def counted(moat: Installation, kind: str, address: str) -> int:
    return sum(int(each[kind]) for each in guessed(moat) if each["address"] == address)


def test_wrong_tokens_and_none_are_counted_by_where_they_come_from(moat: Installation) -> None:
    urls = ["http://a.example/"] * 5
    assert ask(moat, *urls, user=f"x:{GUESS}") == ["407"] * 5
    assert ask(moat, *urls[:2], interface="127.0.0.9") == ["407"] * 2

    eventually("the wrong ones are entered", lambda: counted(moat, "wrong", "127.0.0.1") == 5)
    eventually("the missing ones are entered", lambda: counted(moat, "missing", "127.0.0.9") == 2)

    assert counted(moat, "missing", "127.0.0.1") == 0
    assert all(each["first"] <= each["last"] for each in guessed(moat))
    assert "wrong tokens" in moat.ok("audit")
    assert GUESS not in moat.ok("audit", "--json")
    assert json.loads(moat.ok("audit", "verify", "--json"))["ok"]


def test_what_was_counted_is_entered_when_the_daemon_ends(moat: Installation) -> None:
    assert ask(moat, *["http://a.example/"] * 3, user=f"x:{GUESS}") == ["407"] * 3

    moat.ok("proxy", "stop")

    assert counted(moat, "wrong", "127.0.0.1") == 3


def test_git_which_shows_its_token_only_when_asked_has_not_guessed(moat: Installation) -> None:
    asking = ["env", "GIT_CURL_VERBOSE=1", "git", "ls-remote", "https://a.example/x.git"]

    (moat.home / "w").mkdir()
    done = moat.run("run", "--runtime", "process", "--policy", "strict", "--", *asking, cwd=moat.home / "w")
    moat.ok("proxy", "stop")

    assert b"407" in done.stderr
    assert b"403" in done.stderr
    assert guessed(moat) == []
