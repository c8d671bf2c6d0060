"""An installation with a real daemon, and sealed runs that make a request whenever they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moat.api.credentials import Credential
from moat.api.runtimes import DoorTicket, Sandbox, Stdio
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import stop
from moat.daemon.process import living
from moat.daemon.protocol import RegisterRequest, RegisterResponse
from moat.ids import new_run_id
from moat.paths import Home, private_folder
from moat.runtimes.bubblewrap import Bubblewrap
from moat.store.credentials import CredentialStore

from support.sealed import a_spec
from support.upstream import Upstream

SECRET = "gho_s3cr3t_integration"
USER_URL = "https://api.github.com/user"
ASK = "curl -sk -m 20 -o /dev/null -w '%{http_code}\\n' \"$url\""
AS_TOLD = f"while read url; do {ASK}; done; exit 5"  # one request for each line of input


def granted(root: Path, upstream: Upstream) -> Home:
    """Return an installation with a github grant whose API is the upstream."""
    home = configured(root, upstream)
    CredentialStore(home).save(Credential("github", SECRET, "test"))
    return home


def configured(root: Path, upstream: Upstream) -> Home:
    """Return an installation for which GitHub's API is the upstream."""
    home = Home(private_folder(root))
    (home.root / "roots.pem").write_text(upstream.ca_pem)
    settings = {
        "ca_bundle": str(home.root / "roots.pem"),
        "resolve": upstream.pins("api.github.com"),
        "allow_cidrs": ["127.0.0.0/8"],
    }
    home.config.write_text(json.dumps({"upstream": settings}))
    return home


@contextlib.contextmanager
def ended_after(home: Home) -> Iterator[Home]:
    """End the installation's daemon after the block, whatever happens in it."""
    try:
        yield home
    finally:
        stop(home)
    assert living(home) is None


@dataclass
class Sealed:
    """A live run that makes a request whenever it is told to."""

    made: RegisterResponse
    sandbox: Sandbox
    to: asyncio.StreamWriter
    out: asyncio.StreamReader

    async def request(self, url: str = USER_URL) -> str:
        """Return the line that the run writes for a URL: the status of the answer."""
        self.to.write(f"{url}\n".encode())
        return (await self.out.readline()).decode().strip()


@asynccontextmanager
async def a_sealed_run(
    home: Home, client: DaemonClient, tmp_path: Path, grants: tuple[str, ...] = ("github",), policy: str = "permissive",
    script: str = AS_TOLD, **fields: Any,
) -> AsyncIterator[Sealed]:  # fmt: skip
    """Start a run. script: what it does. fields: further ones of its registration."""
    run_id = new_run_id()
    del home
    asked = RegisterRequest(
        run_id, grants=grants, runtime="bubblewrap", command=("sh",), network_policy=policy, **fields
    )
    made = client.register(asked)
    assert made.door is not None
    workspace = private_folder(tmp_path / "workspace")
    given, to = os.pipe()
    out, written = os.pipe()
    env = {"https_proxy": "http://127.0.0.1:19080", "http_proxy": "http://127.0.0.1:19080"}
    spec = replace(a_spec(["sh", "-c", script], workspace, env=env), run_id=run_id)

    async def created(container_id: str) -> None:
        await asyncio.to_thread(client.tell_container, made.auth_token, container_id)

    ticket = DoorTicket(run_id, Path(made.door.folder), made.door.nonce)
    with open(os.devnull, "wb") as nowhere:  # noqa: ASYNC230, PTH123 # the null device never blocks
        try:
            sandbox = await Bubblewrap().launch(spec, ticket, Stdio(given, written, nowhere.fileno()), created)
        finally:
            os.close(given)
            os.close(written)
    writer = await _writer(to)
    async with _reading(out) as reader:
        try:
            yield Sealed(made, sandbox, writer, reader)
        finally:
            writer.close()
            await sandbox.close()


async def _writer(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    file = os.fdopen(descriptor, "wb", 0)
    transport, protocol = await loop.connect_write_pipe(lambda: asyncio.streams.FlowControlMixin(loop=loop), file)
    return asyncio.StreamWriter(transport, protocol, None, loop)


@asynccontextmanager
async def _reading(descriptor: int) -> AsyncIterator[asyncio.StreamReader]:
    reader = asyncio.StreamReader()
    file = os.fdopen(descriptor, "rb", 0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    try:
        yield reader
    finally:
        transport.close()


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


async def served(sealed: Sealed) -> None:
    """Ask until the run's credentials and its gate are back: 503 before."""
    async with asyncio.timeout(30):
        while (answer := await sealed.request()) != "200":
            assert answer in ("503", "000"), answer
            await asyncio.sleep(0.1)


async def until(claim: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not claim():  # noqa: ASYNC110 # another process's doing: there is no event to wait for
            await asyncio.sleep(0.02)
