"""kill -9 of daemon and worker, again and again, under load: fail closed, and everything comes back as it was."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running
from moat.daemon.protocol import RegisterRequest
from moat.daemon.state import state_file
from moat.ids import new_run_id
from moat.paths import Home
from support.living import SECRET, USER_URL, Sealed, a_sealed_run, killed, served, until
from support.upstream import Upstream

from faults.counts import Counts

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

DENIED_URL = "http://denied.example/"
PLAIN_URL = USER_URL.replace("https", "http")  # curl shows no body of an answer to CONNECT
WAITING = "moat: this run's credentials cannot be had since the daemon was replaced: "


@asynccontextmanager
async def load(sealed: Sealed) -> AsyncIterator[list[str]]:
    """Have a run ask without a pause; gives its answers so far."""
    answers: list[str] = []

    async def ask() -> None:
        while True:
            answers.append(await sealed.request())

    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ask())
        yield answers
        asking.cancel()


def kept(home: Home) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return what is written down of live runs, and their counters, which change by themselves."""
    runs: list[dict[str, Any]] = json.loads(state_file(home).read_bytes())["runs"]
    counted = {str(run["info"]["run_id"]): run["info"].pop("requests") + run["info"].pop("denied") for run in runs}
    return sorted(runs, key=lambda run: str(run["info"]["run_id"])), counted


def has_gone_on(before: dict[str, int], after: dict[str, int]) -> bool:
    """Return whether the same runs are counted as before, and none of them goes back."""
    return before.keys() == after.keys() and all(after[run_id] >= number for run_id, number in before.items())


async def test_the_daemon_killed_under_load_is_followed_by_one_that_has_every_run(
    home: Home, upstream: Upstream, tmp_path: Path, times: int, counts: Counts
) -> None:
    client = ensure_running(home)
    asked = [RegisterRequest(new_run_id(), grants=("github",), network_policy="strict", needs_door=False)] * 3
    tokens = [client.register(replace(each, run_id=new_run_id())).auth_token for each in asked]
    for token in tokens:
        client.tell_container(token, str(os.getpid()))
    async with a_sealed_run(home, client, tmp_path, policy="strict") as sealed:
        await served(sealed)
        port, (before, counted) = client.health().proxy_port, kept(home)
        assert await by_token(port, tokens[0], USER_URL) == "200"
        first = await asyncio.to_thread(counts.now)
        for _ in range(times):
            async with load(sealed) as answers:
                await until(lambda answers=answers: answers.count("200") >= 2)  # type: ignore[misc] # mypy infers no lambda
                killed(client.health().pid)
                client = ensure_running(home)
                at = len(answers)
                await until(lambda answers=answers, at=at: "200" in answers[at + 1 :])  # type: ignore[misc] # as above
            assert set(answers) <= {"200", "503", "000"}
            assert client.health().proxy_port == port
            again, counted_again = kept(home)
            assert again == before
            assert has_gone_on(counted, counted_again)
            counted = counted_again
            await sealed.out.readline()  # of the request that was under way
            assert [await sealed.request(url) for url in (DENIED_URL, USER_URL)] == ["403", "200"]
            assert [await by_token(port, tokens[0], url) for url in (USER_URL, DENIED_URL)] == ["200", "403"]
        await asyncio.to_thread(counts.become, first)
        assert client.end(sealed.made.auth_token, 0).state == "stopped"
    assert [client.end(token, 0).state for token in tokens] == ["stopped"] * 3
    assert {each.header("Authorization") for each in upstream.seen} == {f"Bearer {SECRET}"}


async def by_token(port: int, token: str, url: str) -> str:
    """Return what a run without a door is answered; 503 and 407 are asked again, its credentials are on their way."""
    async with asyncio.timeout(30):
        while True:
            curl = await asyncio.create_subprocess_exec(
                "curl", "-sk", "-m", "20", "-o", os.devnull, "-w", "%{http_code}", "--noproxy", "",
                "-x", f"http://moat:{token}@127.0.0.1:{port}", url, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            answer = (await curl.communicate())[0].decode()
            if answer not in ("000", "503", "407"):
                return answer


async def test_the_worker_killed_under_load_is_replaced_and_nothing_gets_past_it(
    home: Home, upstream: Upstream, tmp_path: Path, times: int, counts: Counts
) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        await served(sealed)
        first = await asyncio.to_thread(counts.now)
        for _ in range(times):
            dead = await _worker(client)
            async with load(sealed) as answers:
                await until(lambda answers=answers: "200" in answers)  # type: ignore[misc] # mypy infers no lambda
                os.kill(dead, signal.SIGKILL)
                await until(lambda dead=dead: client.health().worker_pid not in (0, dead))  # type: ignore[misc] # as above
                at = len(answers)
                await until(lambda answers=answers, at=at: "200" in answers[at + 1 :])  # type: ignore[misc] # as above
            await sealed.out.readline()
            assert set(answers) <= {"200", "000"}
        await asyncio.to_thread(counts.become, first)
    assert {each.header("Authorization") for each in upstream.seen} == {f"Bearer {SECRET}"}


async def _worker(client: DaemonClient) -> int:
    await until(lambda: client.health().worker_pid)
    return client.health().worker_pid


async def test_a_locked_keyring_at_restart_keeps_the_run_closed_until_it_is_unlocked(
    home: Home, upstream: Upstream, tmp_path: Path, times: int, counts: Counts
) -> None:
    client = ensure_running(home)
    key = home.root / "key"
    async with a_sealed_run(home, client, tmp_path, script=SAYS_WHY) as sealed:
        await answered(sealed, lambda answer: answer.endswith(" 200"))
        first = await asyncio.to_thread(counts.now)
        for _ in range(times):
            at = len(upstream.seen)
            key.rename(home.root / "taken")
            killed(client.health().pid)
            client = ensure_running(home)

            await answered(
                sealed,
                lambda answer: WAITING in answer and "; hint: " in answer and answer.endswith(" 503"),
                url=PLAIN_URL,
            )
            assert len(upstream.seen) == at

            (home.root / "taken").rename(key)
            await answered(sealed, lambda answer: answer.endswith(" 200"))
        await asyncio.to_thread(counts.become, first)
    assert {each.header("Authorization") for each in upstream.seen} == {f"Bearer {SECRET}"}


# One line for each request: the answer's body, and its status.
SAYS_WHY = """
while read url; do
    answer=$(curl -sk -m 20 -w ' %{http_code}' "$url") || true
    echo "$answer" | tr '\\n' ' ' | sed 's/ *$//'
    echo
done
"""


async def answered(sealed: Sealed, claim: Callable[[str], bool], url: str = USER_URL) -> None:
    """Ask until an answer is as claimed; until then there is none, or the proxy says 503."""
    async with asyncio.timeout(30):
        while not claim(answer := await sealed.request(url)):
            assert answer.endswith(("000", " 503")), answer
            await asyncio.sleep(0.1)
