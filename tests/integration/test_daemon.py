"""The real daemon, worker and gates in bubblewrap, with a temporary MOAT_HOME and an upstream on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from moat.api.credentials import Credential
from moat.api.errors import SandboxFailed
from moat.api.runtimes import DoorTicket, Sandbox, Stdio
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running, stop
from moat.daemon.process import living, start_time
from moat.daemon.protocol import RegisterRequest, RegisterResponse, SetupRequest
from moat.ids import new_run_id
from moat.paths import Home, private_folder
from moat.runtimes.bubblewrap import Bubblewrap
from moat.store.credentials import CredentialStore
from moat.trace.network import read_exchanges
from moat.trace.store import RunStore
from support.sealed import a_spec
from support.upstream import Upstream, running_upstream

SECRET = "gho_s3cr3t_integration"
ASK = "curl -sk -m 20 -o /dev/null -w '%{http_code}\\n' https://api.github.com/user"
AS_TOLD = f"while read word; do {ASK}; done; exit 5"  # one request for each line of input

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(60),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running_upstream(authorization=f"Bearer {SECRET}") as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An installation with a github grant whose API is the upstream."""
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    home = Home(private_folder(tmp_path / "home"))
    (home.root / "roots.pem").write_text(upstream.ca_pem)
    settings = {
        "ca_bundle": str(home.root / "roots.pem"),
        "resolve": upstream.pins("api.github.com"),
        "allow_cidrs": ["127.0.0.0/8"],
    }
    home.config.write_text(json.dumps({"upstream": settings}))
    CredentialStore(home).save(Credential("github", SECRET, "test"))
    yield home
    stop(home)
    assert living(home) is None


@dataclass
class Sealed:
    """A live run that makes a request whenever it is told to."""

    made: RegisterResponse
    sandbox: Sandbox
    to: asyncio.StreamWriter
    out: asyncio.StreamReader

    async def request(self) -> str:
        self.to.write(b"go\n")
        return (await self.out.readline()).decode().strip()


@asynccontextmanager
async def a_sealed_run(home: Home, client: DaemonClient, tmp_path: Path) -> AsyncIterator[Sealed]:
    run_id = new_run_id()
    made = client.register(RegisterRequest(run_id, grants=("github",), runtime="bubblewrap", command=("sh",)))
    assert made.door is not None
    workspace = private_folder(tmp_path / "workspace")
    given, to = os.pipe()
    out, written = os.pipe()
    env = {"https_proxy": "http://127.0.0.1:19080"}
    spec = replace(a_spec(["sh", "-c", AS_TOLD], workspace, env=env), run_id=run_id)

    async def created(container_id: str) -> None:
        await asyncio.to_thread(client.tell_container, made.auth_token, container_id)

    ticket = DoorTicket(run_id, Path(made.door.folder), made.door.nonce)
    with open(os.devnull, "wb") as nowhere:  # noqa: ASYNC230, PTH123 # the null device never blocks
        try:
            sandbox = await Bubblewrap().launch(spec, ticket, Stdio(given, written, nowhere.fileno()), created)
        finally:
            os.close(given)
            os.close(written)
    try:
        yield Sealed(made, sandbox, await _writer(to), await _reader(out))
    finally:
        await sandbox.close()


async def _writer(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    file = os.fdopen(descriptor, "wb", 0)
    transport, protocol = await loop.connect_write_pipe(lambda: asyncio.streams.FlowControlMixin(loop=loop), file)
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    file = os.fdopen(descriptor, "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    return reader


async def until(claim: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not claim():  # noqa: ASYNC110 # another process's doing: there is no event to wait for
            await asyncio.sleep(0.02)


async def test_a_sealed_run_spends_a_credential_that_it_does_not_have(
    home: Home, upstream: Upstream, tmp_path: Path
) -> None:
    client = ensure_running(home)
    assert "api.github.com" in client.setup(SetupRequest(grants=("github",))).hosts
    async with a_sealed_run(home, client, tmp_path) as sealed:
        assert [each.state for each in client.runs()] == ["running"]
        assert await sealed.request() == "200"
        sealed.to.close()
        assert await sealed.sandbox.wait() == 5
    info = client.end(sealed.made.auth_token, 5)

    assert [each.header("Authorization") for each in upstream.seen] == [f"Bearer {SECRET}"]
    assert (info.state, info.exit_code, info.requests, info.denied) == ("stopped", 5, 1, 0)
    exchanges = list(read_exchanges(RunStore(home).network(info.run_id)))
    assert [(each.host, each.status, each.grants) for each in exchanges] == [("api.github.com", 200, ("github",))]
    for file in (home.run(info.run_id) / "run.json", RunStore(home).network(info.run_id), home.daemon / "daemon.log"):
        assert SECRET.encode() not in file.read_bytes()
    assert not home.door(info.run_id).exists()


async def test_a_killed_worker_is_healed_while_the_run_lives(home: Home, tmp_path: Path) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        assert await sealed.request() == "200"
        dead = client.health().worker_pid
        os.kill(dead, signal.SIGKILL)

        assert await sealed.request() == "200"

        assert client.health().worker_pid not in (0, dead)
        assert client.end(sealed.made.auth_token, 0).requests == 2


async def test_a_killed_daemon_shuts_the_run_s_way_out_and_the_next_command_works(home: Home, tmp_path: Path) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        assert await sealed.request() == "200"
        health = client.health()
        os.kill(health.pid, signal.SIGKILL)
        os.waitpid(health.pid, 0)  # noqa: ASYNC222 # killed: it ends at once
        await until(lambda: start_time(health.worker_pid) is None)  # its channel ended

        sealed.to.write(b"go\n")  # nobody accepts: it waits in the backlog
        again = ensure_running(home)

        (run_id,) = [info.run_id for info in RunStore(home).list()]
        assert RunStore(home).read(run_id).state == "lost"
        assert again.runs() == []
        async with a_sealed_run(home, again, tmp_path) as next_one:
            assert await next_one.request() == "200"


async def test_when_the_gate_is_killed_the_run_is_over(home: Home, tmp_path: Path) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        assert await sealed.request() == "200"
        os.kill(int(sealed.sandbox.container_id), signal.SIGKILL)

        with pytest.raises(SandboxFailed):
            await sealed.sandbox.wait()
        await until(lambda: client.runs() == [])

    assert RunStore(home).read(sealed.made.run_id).state == "lost"


async def test_a_grant_that_is_withdrawn_is_not_spent_any_more(home: Home, upstream: Upstream, tmp_path: Path) -> None:
    client = ensure_running(home)
    async with a_sealed_run(home, client, tmp_path) as sealed:
        assert await sealed.request() == "200"
        client.register(RegisterRequest(sealed.made.run_id, auth_token=sealed.made.auth_token))

        assert await sealed.request() == "401"

    assert [each.header("Authorization") for each in upstream.seen] == [f"Bearer {SECRET}", None]


async def test_two_runs_at_once_each_have_their_own_door(home: Home, tmp_path: Path) -> None:
    client = ensure_running(home)
    async with (
        a_sealed_run(home, client, tmp_path / "one") as one,
        a_sealed_run(home, client, tmp_path / "two") as two,
    ):
        assert await one.request() == await two.request() == "200"
        client.end(one.made.auth_token, 0)
        assert await two.request() == "200"
        assert [info.run_id for info in client.runs()] == [two.made.run_id]
