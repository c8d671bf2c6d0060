"""Credentials on their way in and through their life: pasted, helped with, expired, asked for in a storm, AWS's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from core.daemon.making import until
from core.daemon.refreshing import a_scene
from moat.api.credentials import Credential
from moat.api.errors import GrantFailed, MoatError
from moat.api.rules import AddHeader, Instead, Match, ReplaceToken, Rule, SetHeader
from moat.config.settings import UpstreamSettings
from moat.host import RealHost
from moat.proxy.snapshot import SnapshotError, from_wire, to_wire
from support.aws import running_aws
from support.installation import installation
from support.scripted import answer, bearer, talking
from support.worker import a_run

MATCH = Match("api.example.com")
BAD = {
    "a line break": "a\r\nX-Injected: b", "a line feed": "a\nb", "a carriage return": "a\rb", "NUL": "a\0b",
    "a bell": "a\x07b", "delete": "a\x7fb", "a vertical tab": "a\x0bb", "a C1 control": "a\x85b", "ESC": "a\x1b[2Jb",
    "a line separator": "a\u2028b", "an invisible letter": "a\u200bb", "another direction": "a\u202eb",
}  # fmt: skip
each_bad = pytest.mark.parametrize("middle", BAD.values(), ids=BAD)
RULES: tuple[Callable[[str], Rule | Instead], ...] = (
    lambda value: SetHeader(MATCH, "Authorization", value),
    lambda value: AddHeader(MATCH, "X-Key", value),
    lambda value: SetHeader(MATCH, f"X-{value}", "fine"),
    lambda value: ReplaceToken(MATCH, "moat-placeholder", value, ("path", "body")),
    lambda value: ReplaceToken(MATCH, f"moat-placeholder{value}", "fine"),
    lambda value: Instead(200, "", content_type=value),
)


def a_host(folder: Path | None = None) -> RealHost:
    path = os.environ["PATH"] if folder is None else f"{folder}:{os.environ['PATH']}"
    return RealHost({"PATH": path}, UpstreamSettings(), lambda _: None, "github")


@each_bad
def test_a_secret_with_control_characters_is_not_stored(middle: str) -> None:
    with installation() as made:
        done = made.run("grant", "github", "--with-token", "--no-validate", input=f"s3cr3t{middle}s3cr3t".encode())
        stored = made.ok("grant", "list", "--json")

    assert done.returncode != 0
    assert b"s3cr3t" not in done.stdout + done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    assert "github" not in json.dumps(json.loads(stored))


@pytest.mark.parametrize("make", RULES)
@each_bad
def test_no_rule_can_be_made_of_it(middle: str, make: Callable[[str], Rule]) -> None:
    with pytest.raises(MoatError) as error:
        make(f"s3cr3t{middle}s3cr3t")

    assert middle not in str(error.value)


@each_bad
def test_no_rule_that_comes_over_the_wire_holds_it(middle: str) -> None:
    wire = to_wire(a_run(rules=(bearer(),)))
    wire["rules"][0]["value"] = f"Bearer s3cr3t{middle}"

    with pytest.raises(SnapshotError) as error:
        from_wire(wire)
    assert "s3cr3t" not in str(error.value)


HELPERS = {
    "hangs": "sleep 60; :",
    "leaves a child that keeps its output open": 'sh -c "sleep 60; :" $0 & echo s3cr3t',
    "ignores that it shall end": "trap '' TERM INT HUP; while :; do sleep 1; done",
}


@pytest.mark.parametrize("script", HELPERS.values(), ids=HELPERS)
async def test_a_helper_that_does_not_end_is_left_and_nothing_of_it_stays(script: str, tmp_path: Path) -> None:
    mine = f"moat-helper-{tmp_path.name}"

    with pytest.raises(GrantFailed) as caught:
        await a_host().run("sh", "-c", script, mine, timeout_s=0.5)

    assert "s3cr3t" not in f"{caught.value.problem}{caught.value.hint}"
    async with asyncio.timeout(30):  # what is killed is gone a moment later
        while mine.encode() in await asyncio.to_thread(_command_lines):  # noqa: ASYNC110 # other processes
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("script", ["yes s3cr3t", "yes s3cr3t >&2"], ids=["output", "errors"])
async def test_a_helper_that_prints_without_end_costs_a_bounded_room_and_time(script: str) -> None:
    with pytest.raises(GrantFailed) as caught:
        await a_host().run("sh", "-c", script, timeout_s=0.5)

    assert "s3cr3t" not in f"{caught.value.problem}{caught.value.hint}"


@pytest.mark.parametrize(
    "said",
    ["s3cr3t\\nX-Injected: y", "s3cr3t\\033[2J", "two s3cr3t words", "", "\\377\\376s3cr3t", "s3cr3t\\000s3cr3t"],
)
def test_what_a_helper_says_is_no_token_until_it_looks_like_one(said: str) -> None:
    with installation() as made:
        helper = made.file("bin/gh", f"#!/bin/sh\nprintf '{said}'\n", 0o755)
        path = f"{helper.parent}:{made.environment()['PATH']}"
        done = made.run("grant", "github", env={"PATH": path})

    assert done.returncode != 0
    assert b"s3cr3t" not in done.stdout + done.stderr


async def test_an_expired_token_is_replaced_in_the_next_request_and_spent_no_more(tmp_path: Path) -> None:
    def unless_fresh(head: str, body: bytes) -> list[bytes]:
        del body
        return [answer(b"") if "s3cr3t-new" in head else answer(b"expired", status="401 Unauthorized")]

    async with talking(tmp_path, unless_fresh, bearer(token="s3cr3t-old")) as talk:
        url = "https://api.example.com/"
        before = await talk.curl(url, "-w", "%{http_code}")
        await talk.worker.put(a_run(rules=(bearer(token="s3cr3t-new"),)))
        after = [await talk.curl(url, "-w", "%{http_code}") for _ in range(2)]

    assert (before, after) == (b"expired401", [b"200", b"200"])
    assert ["s3cr3t-old" in head for head in talk.place.heads] == [True, False, False]


async def test_a_run_that_provokes_401s_brings_one_renewal_a_minute() -> None:
    async with a_scene() as scene:
        await scene.waits()
        for _ in range(10_000):
            scene.refreshers.rejected("", "apple")
        await until(lambda: scene.renewed)
        for _ in range(10_000):
            scene.refreshers.rejected("", "apple")
        await scene.later(50)

        assert scene.server.asked == ["tok-s3cr3t-0"]


async def test_401s_of_other_grants_and_profiles_renew_nothing_of_this_one() -> None:
    async with a_scene() as scene:
        scene.vault.kept["work", "apple"] = Credential("apple", "tok-s3cr3t-0", "device flow")
        await scene.waits()
        for profile, grant in (("work", "apple"), ("", "pear"), ("../", "apple")):
            scene.refreshers.rejected(profile, grant)
        await scene.later(120)

        assert scene.server.asked == []


@pytest.mark.bubblewrap
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
# botocore itself calls a function that Python 3.12 deprecates; nothing of ours.
@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
def test_the_users_own_aws_keys_are_not_to_be_found_inside_and_without_the_grant_there_are_none() -> None:
    ask = "curl -s --noproxy '*' -m 20 http://127.0.0.1:19080/_moat/aws/"
    scope = "Credential=AKIAMOAT000000000000/20260131/us-east-1/s3/aws4_request"
    signed = f"Authorization: AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=00"
    wrong = f"curl -s -m 20 -H '{signed}' https://sts.us-east-1.amazonaws.com/"
    search = f"{ask}; {wrong}; env; cat ~/.aws/* /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'"
    with running_aws() as aws, installation() as made:
        aws.write_profile(made.home)
        made.ok("grant", "aws", "--role", aws.role)
        run = ["run", str(made.file("work/.made", "").parent), "--runtime", "bubblewrap"]
        signing = made.ok(*run, "--grant", "aws", "--", "sh", "-c", search)
        made.ok("grant", "aws", "--role", aws.role, "--mode", "endpoint")
        granted = made.ok(*run, "--grant", "aws", "--", "sh", "-c", search)
        without = made.ok(*run, "--", "sh", "-c", search)

    assert "signed for the service s3, and sts.us-east-1.amazonaws.com is none of its hosts" in signing
    assert '"SecretAccessKey"' in granted
    assert "AccessKeyId" not in signing + without
    assert [key for key in aws.key if key in granted + signing + without] == []


def _command_lines() -> bytes:
    """Return what every process on this machine was called with."""
    found = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it is over
            found += path.read_bytes()
    return found
