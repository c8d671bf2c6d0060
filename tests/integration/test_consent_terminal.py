"""A person at a real terminal is asked, answers, and the command gets what is typed after that and nothing before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
from support.installation import Installation, installation
from support.terminal import DEADLINE_S, Terminal, terminal

pytestmark = [pytest.mark.bubblewrap, pytest.mark.timeout(90)]


def run_in_front(made: Installation) -> AbstractContextManager[Terminal]:
    return terminal(made, "run", "work", "--runtime", "bubblewrap", MOAT_NO_PROMPT="")


@pytest.fixture
def made() -> Iterator[Installation]:
    with installation() as made:
        script = 'cat /o/word; echo "line?"; read line; echo "got $line"'
        made.file("outside/word", "of the host\n")
        settings = {"command": ["sh", "-c", script], "mounts": [{"source": "../outside", "target": "/o"}]}
        made.file("work/moat.yaml", json.dumps(settings))
        yield made


def test_who_agrees_gets_the_run_and_is_asked_once(made: Installation) -> None:
    with run_in_front(made) as first:
        asked = first.read_until("[y/N] ")
        assert f"1. read and change {made.home.resolve()}/outside, as /o" in asked
        first.type("y\n")
        first.read_until("of the host")
        first.read_until("line?")
        first.type("typed\n")
        first.read_until("got typed")
        assert first.process.wait(timeout=DEADLINE_S) == 0

    with run_in_front(made) as second:
        assert "[y/N]" not in second.read_until("line?")


@pytest.mark.parametrize("answer", ["\n", "n\n", "\x04"], ids=["only Return", "no", "the end of input"])
def test_who_does_not_agree_gets_no_run(made: Installation, answer: str) -> None:
    with run_in_front(made) as opened:
        opened.read_until("[y/N] ")
        opened.type(answer)

        assert "nothing was run" in opened.read_until("--ignore-file")
        assert opened.process.wait(timeout=DEADLINE_S) == 2

    assert json.loads(made.ok("list", "--json")) == []


def test_who_leaves_by_ctrl_c_gets_no_run(made: Installation) -> None:
    with run_in_front(made) as opened:
        opened.read_until("[y/N] ")
        opened.type("\x03")

        assert opened.process.wait(timeout=DEADLINE_S) == 130

    assert json.loads(made.ok("list", "--json")) == []
