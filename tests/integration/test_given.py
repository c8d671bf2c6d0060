"""What a registration brings itself, from the socket of a real daemon to what an upstream is sent."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moat.daemon.client import DaemonClient
from moat.daemon.extras import (
    ExtraHeader,
    GivenCredential,
    ResponseTransformer,
    TokenSubstitution,
    UnwantedHeader,
)
from moat.daemon.lifecycle import ensure_running
from moat.daemon.protocol import RegisterRequest, RegisterResponse
from moat.ids import new_run_id
from moat.paths import Home, private_folder
from support.living import ended_after, killed
from support.proxied import run
from support.upstream import Upstream, running_upstream

pytestmark = pytest.mark.timeout(60)
HOST = "api.example.com"
TOKEN = "tok-s3cr3t-given"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running_upstream() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    home = Home(private_folder(tmp_path / "home"))
    (home.root / "roots.pem").write_text(upstream.ca_pem)
    settings = {"ca_bundle": "roots.pem", "resolve": upstream.pins(HOST), "allow_cidrs": ["127.0.0.0/8"]}
    home.config.write_text(json.dumps({"upstream": settings}))
    with ended_after(home):
        yield home


def registered(client: DaemonClient, **fields: Any) -> RegisterResponse:
    values: dict[str, Any] = {"run_id": new_run_id(), "needs_door": False} | fields
    made = client.register(RegisterRequest(**values))
    client.tell_container(made.auth_token, str(os.getpid()))
    return made


async def asked(home: Home, made: RegisterResponse, path: str, *arguments: str) -> tuple[str, int]:
    """Have the run make a request; return the answer's body and status."""
    proxy = f"http://moat:{made.auth_token}@127.0.0.1:{made.proxy_port}"
    words = ("curl", "-s", "-m", "20", "--cacert", str(home.ca / "ca.pem"), "-x", proxy, "-w", "\n%{http_code}")
    done = await run(*words, *arguments, path if "://" in path else f"https://{HOST}{path}")
    body, _, status = done.stdout.decode().rpartition("\n")
    return body, int(status)


async def refused(home: Home, made: RegisterResponse) -> tuple[str, int]:
    """Have the run ask without TLS, where curl shows the proxy's own answer: that to CONNECT it does not."""
    return await asked(home, made, f"http://{HOST}/")


async def test_a_credential_takes_the_place_of_the_client_s_own(home: Home, upstream: Upstream) -> None:
    given = GivenCredential(HOST, "Authorization", f"Bearer {TOKEN}", "mine")
    made = registered(ensure_running(home), credentials=(given,))

    body, status = await asked(home, made, "/echo", "-H", "Authorization: Bearer placeholder", "-d", TOKEN)

    assert status == 200
    assert TOKEN not in body
    assert [each.header("Authorization") for each in upstream.seen] == [f"Bearer {TOKEN}"]


async def test_a_header_is_added_beside_the_client_s_own(home: Home, upstream: Upstream) -> None:
    made = registered(ensure_running(home), extra_headers=(ExtraHeader(HOST, "X-Beta", "one-s3cr3t"),))

    assert (await asked(home, made, "/", "-H", "X-Beta: two"))[1] == 200
    (seen,) = upstream.seen
    assert sorted(value for name, value in seen.headers if name == "X-Beta") == ["one-s3cr3t", "two"]


async def test_a_header_that_is_not_wanted_does_not_arrive(home: Home, upstream: Upstream) -> None:
    made = registered(ensure_running(home), remove_headers=(UnwantedHeader(HOST, "X-Api-Key"),))

    assert (await asked(home, made, "/", "-H", "X-Api-Key: placeholder", "-H", "X-Other: kept"))[1] == 200
    (seen,) = upstream.seen
    names = {name.lower() for name, _ in seen.headers}
    assert ("x-api-key" in names, "x-other" in names) == (False, True)


async def test_a_placeholder_becomes_the_token_in_header_path_and_query(home: Home, upstream: Upstream) -> None:
    given = TokenSubstitution(HOST, "moat-placeholder", TOKEN)
    made = registered(ensure_running(home), token_substitutions=(given,))

    await asked(home, made, "/bot-moat-placeholder/x?key=moat-placeholder", "-H", "X-Key: moat-placeholder")
    (seen,) = upstream.seen
    assert (seen.path, seen.header("X-Key")) == (f"/bot-{TOKEN}/x?key={TOKEN}", TOKEN)


async def test_a_placeholder_in_a_body_becomes_the_token_and_does_not_come_back(home: Home, upstream: Upstream) -> None:
    given = TokenSubstitution(HOST, "moat-placeholder", TOKEN)
    made = registered(ensure_running(home), token_substitutions=(given,))

    body, status = await asked(home, made, "/echo", "--json", '{"key": "moat-placeholder"}')

    assert (status, TOKEN in body) == (200, False)
    (seen,) = upstream.seen
    assert seen.body_bytes == len(json.dumps({"key": TOKEN}))


@pytest.mark.parametrize(
    ("transformers", "wanted"),
    [((ResponseTransformer(HOST, "oauth-endpoint-workaround"),), ('{"usage":{}}', 200)), ((), ("no", 403))],
    ids=["asked for", "not asked for"],
)
async def test_an_answer_that_is_transformed_is_so_only_where_that_was_asked_for(
    home: Home, upstream: Upstream, transformers: tuple[ResponseTransformer, ...], wanted: tuple[str, int]
) -> None:
    made = registered(ensure_running(home), response_transformers=transformers)

    assert await asked(home, made, "/api/oauth/usage") == wanted
    assert len(upstream.seen) == 1


async def test_values_that_went_with_a_daemon_are_503_with_the_reason_until_they_are_registered_again(
    home: Home, upstream: Upstream
) -> None:
    client = ensure_running(home)
    given: dict[str, Any] = {"credentials": (GivenCredential(HOST, "Authorization", f"Bearer {TOKEN}"),)}
    made = registered(client, **given, launcher_pid=os.getpid())
    assert (await asked(home, made, "/"))[1] == 200

    killed(client.health().pid)
    client = await asyncio.to_thread(ensure_running, home)
    async with asyncio.timeout(30):
        while "the values this run was registered with" not in (answer := await refused(home, made))[0]:  # noqa: ASYNC110 # the daemon's doing
            await asyncio.sleep(0.05)
    assert answer[1] == 503
    assert len(upstream.seen) == 1

    again = registered(client, run_id=made.run_id, auth_token=made.auth_token, **given)
    assert (again.auth_token, again.proxy_port) == (made.auth_token, made.proxy_port)
    assert (await asked(home, made, "/"))[1] == 200
    assert [each.header("Authorization") for each in upstream.seen] == [f"Bearer {TOKEN}"] * 2
