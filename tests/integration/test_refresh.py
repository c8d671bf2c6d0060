"""A token that is renewed under a live run: a provider of its own, a token server that checks what it is sent."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from support.installation import Installation
from support.plugged import plugged
from support.upstream import make_test_ca

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

PROVIDER = """
import json
from moat.api import (Credential, CredentialProvider, GrantFailed, GrantRevoked, HttpRequest, Match, SetHeader,
                      hookimpl)

class Fake(CredentialProvider):
    name = "fake"
    summary = "for tests"
    refresh_every_s = 3.0

    async def grant(self, host):
        raise GrantFailed("not here")

    async def accept(self, secret, host):
        return Credential("fake", secret, "standard input")

    def rules(self, credential):
        return [SetHeader(Match("api.example.com"), "Authorization", "Bearer " + credential.secret, "fake")]

    async def refresh(self, credential, host):
        body = json.dumps({"grant_type": "refresh_token", "refresh_token": credential.secret}).encode()
        headers = {"Content-Type": "application/json"}
        answer = await host.fetch(HttpRequest("POST", "https://auth.example.com/token", headers, body))
        if answer.status == 400:
            raise GrantRevoked("fake says that the token was revoked")
        if answer.status != 200:
            raise GrantFailed(f"fake answered HTTP {answer.status}")
        return Credential("fake", json.loads(answer.body)["access_token"], credential.source)

@hookimpl
def moat_credential_providers():
    return [Fake()]
"""
ASK = "while read word; do curl -s -m 20 -w ' %{http_code}\\n' https://api.example.com/; done"


@dataclass
class Service:
    """The API and its token server: each token is renewed once, for the next; only the newest is accepted."""

    newest: int = 0
    port: int = 0
    is_revoked: bool = False
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    sent: list[object] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)

    @property
    def token(self) -> str:
        return f"tok-s3cr3t-{self.newest}"

    async def renew(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.sent.append(asked)
        wanted = {"grant_type": "refresh_token", "refresh_token": self.token}
        if self.is_revoked or asked != wanted or "Authorization" in request.headers:
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.newest += 1
        await self.answers.wait()
        return web.json_response({"access_token": self.token})

    async def use(self, request: web.Request) -> web.Response:
        shown = request.headers.get("Authorization", "")
        if self.is_revoked or shown != f"Bearer {self.token}":
            return web.Response(status=401, text="no")
        self.accepted.append(shown)
        return web.Response(text="yes")


@asynccontextmanager
async def a_service(made: Installation) -> AsyncIterator[Service]:
    service, ca = Service(), make_test_ca()
    service.answers.set()
    app = web.Application()
    app.router.add_post("/token", service.renew)
    app.router.add_get("/", service.use)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ca.server_context("api.example.com", "auth.example.com"))
    await site.start()
    service.port = runner.addresses[0][1]
    roots = made.file("roots.pem", ca.pem)
    places = {host: f"127.0.0.1:{service.port}" for host in ("api.example.com", "auth.example.com")}
    settings = {"ca_bundle": str(roots), "resolve": places, "allow_cidrs": ["127.0.0.0/8"]}
    made.configure({"upstream": settings})
    try:
        yield service
    finally:
        await runner.cleanup()


async def asked(run: subprocess.Popen[bytes]) -> str:
    """Have the run make one request, and return the answer's body and status."""
    assert run.stdin is not None
    assert run.stdout is not None
    run.stdin.write(b"go\n")
    run.stdin.flush()
    return (await asyncio.to_thread(run.stdout.readline)).decode().strip()


async def test_a_run_gets_each_new_token_and_hears_of_its_end() -> None:
    with plugged("moat-provider-fake", PROVIDER, {"moat": {"fake": "moat_provider_fake"}}) as made:
        async with a_service(made) as service:
            await asyncio.to_thread(made.grant, "fake", service.token)
            work = made.file("work/file", "").parent
            run = made.start("run", work, "--grant", "fake", "--", "sh", "-c", ASK, stdin=subprocess.PIPE)
            try:
                await _renewed_under(run, service)
                service.is_revoked = True
                async with asyncio.timeout(30):
                    while "run: moat grant fake" not in (told := await asked(run)):
                        assert told.endswith(" 401"), told
                        await asyncio.sleep(0.2)
                assert "fake says that the token was revoked" in told
                status = json.loads(await asyncio.to_thread(made.ok, "status", "--json"))
                (grant,) = status["daemon"]["grants"]
                assert (grant["grant"], grant["state"]) == ("fake", "revoked")
                assert "run: moat grant fake" in await asyncio.to_thread(made.ok, "status")
                count = len(service.sent)
                await asyncio.sleep(4)
                assert len(service.sent) == count  # it is asked no more
            finally:
                _, said = await asyncio.to_thread(run.communicate)
                sys.stderr.write(said.decode())  # for a failure


async def _renewed_under(run: subprocess.Popen[bytes], service: Service) -> None:
    """Ask until three tokens have been spent. A token that was replaced just now may be one request's last."""
    async with asyncio.timeout(60):
        while len(set(service.accepted)) < 3:
            assert await asked(run) in ("yes 200", "no 401")
            await asyncio.sleep(0.2)
    assert all(service.sent[number] == {"grant_type": "refresh_token", "refresh_token": f"tok-s3cr3t-{number}"}
               for number in range(len(service.sent)))  # fmt: skip


async def test_a_token_that_is_renewed_while_the_daemon_leaves_is_not_lost() -> None:
    with plugged("moat-provider-fake", PROVIDER, {"moat": {"fake": "moat_provider_fake"}}) as made:
        async with a_service(made) as service:
            await asyncio.to_thread(made.grant, "fake", service.token)
            work = made.file("work/file", "").parent
            service.answers.clear()
            run = made.start("run", work, "--grant", "fake", "--", "sh", "-c", ASK, stdin=subprocess.PIPE)
            try:
                assert await asked(run) == "yes 200"
                async with asyncio.timeout(30):
                    while not service.sent:  # noqa: ASYNC110 # the daemon asks when the time has come
                        await asyncio.sleep(0.05)
                os.kill(await asyncio.to_thread(made.daemon_pid), signal.SIGTERM)
                asyncio.get_running_loop().call_later(1, service.answers.set)
                async with asyncio.timeout(60):
                    while len(set(service.accepted)) < 3:  # the next daemon begins with the new one
                        assert await asked(run) in ("yes 200", "no 401", "000")  # 000: between the two daemons
                        await asyncio.sleep(0.2)
            finally:
                _, said = await asyncio.to_thread(run.communicate)
                sys.stderr.write(said.decode())  # for a failure
