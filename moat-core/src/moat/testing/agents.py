"""What every agent promises, as a pytest class to inherit from.

    class TestPal(AgentContract):
        agent = Pal()

Each test says what a user may rely on: that nothing secret gets in, that what is asked for arrives, and that files
which a run has left behind cannot break anything.
"""

# ruff: noqa: S101 # a pytest class: asserting is what it is for

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import ClassVar

from moat.api.agents import AgentProvider, AgentRequest, KeptFile, Surroundings
from moat.api.runs import NetworkPolicy
from moat.config.dependencies import checked_dependencies
from moat.ids import NAME
from moat.runs.trust import RESERVED

SECRET = "s3cr3t-" + "0123456789abcdef" * 4
TALKED_TO = AgentRequest()
ASKED = AgentRequest("do it well", "4711", "big-model", arguments=("--odd", "word"))
_SHAPES = (SECRET, [SECRET], {"key": SECRET}, {"a": {"b": SECRET}})


class AgentContract:
    """Inherit, set the attribute, done. kept_file: the path of a file below `kept` that would be a session."""

    agent: ClassVar[AgentProvider]
    kept_file: ClassVar[str] = ""

    def surroundings(self, **more: object) -> Surroundings:
        """Return a run's surroundings on the agent's best grant."""
        around = Surroundings(
            home="/home/moat",
            workspace="/workspace",
            program=("/opt/some/program",),
            now=datetime(2030, 1, 2, tzinfo=UTC),
            grant=self.agent.grants[0],
            grants=self.agent.grants[:1],
        )
        return replace(around, **more)  # type: ignore[arg-type] # of this module's own tests

    def test_it_has_a_name_that_can_be_typed_and_says_what_it_is(self) -> None:
        assert NAME.fullmatch(self.agent.name)
        assert self.agent.summary.strip()
        assert self.agent.program.strip()

    def test_it_runs_on_some_grant_and_in_an_image_that_can_be_built(self) -> None:
        assert self.agent.grants
        assert checked_dependencies(self.agent.dependencies)

    def test_what_is_asked_for_arrives(self) -> None:
        words = list(self.agent.command(ASKED, self.surroundings(program=("node", "/p.js"))))

        assert words[words.index("node") + 1] == "/p.js"
        for word in ("do it well", "4711", "big-model", "--odd", "word"):
            assert word in words

    def test_who_is_only_talked_to_is_started_without_a_prompt(self) -> None:
        assert "" not in self.agent.command(TALKED_TO, self.surroundings())

    def test_not_acting_freely_makes_a_difference(self) -> None:
        free, bound = (
            (self.agent.command(request, self.surroundings()), self.agent.setup(request, self.surroundings()))
            for request in (TALKED_TO, replace(TALKED_TO, acts_freely=False))
        )

        assert free != bound

    def test_it_is_pure(self) -> None:
        one, two = (self.agent.setup(ASKED, self.surroundings()) for _ in range(2))

        assert one == two
        assert self.agent.command(ASKED, self.surroundings()) == self.agent.command(ASKED, self.surroundings())

    def test_its_files_lie_in_the_home_and_its_variables_are_no_business_of_moats(self) -> None:
        for grant in self.agent.grants:
            setup = self.agent.setup(TALKED_TO, self.surroundings(grant=grant, grants=(grant,)))
            assert all(PurePosixPath(path).is_relative_to("/home/moat") for path in setup.files)
            assert not RESERVED & set(setup.env)

    def test_what_it_keeps_lies_in_the_home(self) -> None:
        for kept in (*self.agent.kept, *self.agent.host_files):
            assert not PurePosixPath(kept).is_absolute()
            assert ".." not in PurePosixPath(kept).parts

    def test_it_is_told_its_limits_as_they_are(self) -> None:
        strict = self.surroundings(policy=NetworkPolicy("strict", ("only.example.com",)))

        assert "only.example.com" in "".join(self.agent.setup(TALKED_TO, strict).files.values())
        assert "only.example.com" not in "".join(self.agent.setup(TALKED_TO, self.surroundings()).files.values())

    def test_it_is_told_of_mcp_servers(self) -> None:
        around = self.surroundings(mcp={"notes": "http://127.0.0.1:19080/mcp/notes"})

        assert "http://127.0.0.1:19080/mcp/notes" in "".join(self.agent.setup(TALKED_TO, around).files.values())

    def test_no_secret_of_the_users_own_files_gets_in(self) -> None:
        for text in (SECRET, f'key = "{SECRET}"\n', json.dumps(dict(zip("abcd", _SHAPES, strict=True))), "[]", "\x00"):
            files = dict.fromkeys(self.agent.host_files, text.encode())
            setup = self.agent.setup(TALKED_TO, self.surroundings(host_files=files))
            assert SECRET not in repr(setup)

    def test_files_that_a_run_left_break_nothing(self) -> None:
        now = datetime(2030, 1, 2, tzinfo=UTC)
        kept = self.agent.kept[0] if self.agent.kept else ""
        heads = (b"", b"\x00\xff", b"{", b"[]", b'"x"', b"null", b'{"type": []}\n{"message": 1, "payload": 2}')
        for path in (f"{kept}/x", f"{kept}/a/b.jsonl", self.kept_file):
            found = self.agent.sessions(KeptFile(path, now, head) for head in heads)
            assert all(session.id and isinstance(session.title, str) for session in found)
