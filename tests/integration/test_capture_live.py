"""A run that renews its grant at a token endpoint, by the real command, daemon and worker, in bubblewrap."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installation import Installation
from support.plugged import plugged
from support.scripted import answer, scripted

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

HOST = "api.example.com"
JSON = "Content-Type: application/json"
PLUGIN = """
import json
from dataclasses import replace
from moat.api import (CaptureToken, Credential, CredentialProvider, GrantFailed, Instead, Match, ReplaceToken, Rewriter,
                      RewriteResponse, SetHeader, hookimpl)

HOST = "api.example.com"
ACCESS, REFRESH = "moat-access-placeholder", "moat-refresh-placeholder"
TOKENS = Match(HOST, ("POST",), ("/oauth/token",))


class Fake(CredentialProvider):
    name, summary = "fake", "a service with a token endpoint"

    async def grant(self, host):
        raise GrantFailed("use --with-token")

    async def accept(self, secret, host):
        return Credential(self.name, secret, "standard input")

    def rules(self, credential):
        pair = json.loads(credential.secret)
        return [
            SetHeader(Match(HOST, (), ("/v1/**",)), "Authorization", "Bearer " + pair["access"], self.name),
            ReplaceToken(TOKENS, REFRESH, pair["refresh"], ("body",), grant=self.name),
            CaptureToken(TOKENS, self.name, {"grant_type": "refresh_token", "refresh_token": REFRESH},
                         {"access_token": ACCESS, "refresh_token": REFRESH}),
            RewriteResponse(Match(HOST, (), ("/v1/profile",)), Instead(200, '{"id": ""}'), statuses=(403,)),
            RewriteResponse(Match(HOST, (), ("/v1/loud",)), Rewriter("fake-loud", {"sign": "!"})),
        ]

    def captured(self, credential, tokens):
        pair = {"access": tokens.tokens["access_token"], "refresh": tokens.tokens["refresh_token"]}
        return replace(credential, secret=json.dumps(pair), expires_at=tokens.expires_at)


def loud(head, body, parameters):
    return head, body.upper() + parameters["sign"].encode()


@hookimpl
def moat_credential_providers():
    return [Fake()]
"""
RENEW = (
    """curl -s -H 'Content-Type: application/json' https://api.example.com/oauth/token -d """
    """'{"grant_type": "refresh_token", "refresh_token": "moat-refresh-placeholder"}'"""
)
USE = "curl -s -H 'Authorization: Bearer moat-access-placeholder' https://api.example.com/v1"


@pytest.fixture
def made() -> Iterator[Installation]:
    groups = {"moat": {"fake": "moat_provider_fake"}, "moat.rewriters": {"fake-loud": "moat_provider_fake:loud"}}
    with plugged("moat-provider-fake", PLUGIN, groups) as made:
        yield made


async def test_a_run_renews_its_grant_for_itself_and_for_runs_to_come_and_sees_no_token(
    made: Installation, tmp_path: Path
) -> None:
    def service(head: str, body: bytes) -> Iterator[bytes]:
        if head.startswith("POST /oauth/token "):
            number = int(json.loads(body)["refresh_token"].rpartition("-")[2])
            given = {"access_token": f"s3cr3t-access-{number + 1}", "refresh_token": f"s3cr3t-refresh-{number + 1}"}
            yield answer(json.dumps({**given, "expires_in": 3600}).encode(), JSON)
        elif head.startswith("GET /v1/profile "):
            yield answer(b'{"error": "scope"}', JSON, status="403 Forbidden")
        else:
            yield answer(b'{"fine": true}', JSON)

    async with scripted(service) as place:
        (tmp_path / "roots.pem").write_text(place.ca_pem)
        settings = {"ca_bundle": str(tmp_path / "roots.pem"), "resolve": {HOST: place.address}}
        made.configure({"upstream": {**settings, "allow_cidrs": ["127.0.0.0/8"]}})
        workspace = made.home / "work"
        workspace.mkdir()
        first = {"access": "s3cr3t-access-1", "refresh": "s3cr3t-refresh-1"}
        await asyncio.to_thread(made.grant, "fake", json.dumps(first))

        async def run(command: str) -> str:
            words = ("run", workspace, "--runtime", "bubblewrap", "--grant", "fake", "--", "sh", "-c", command)
            return await asyncio.to_thread(made.ok, *words)

        renewed = await run(f"{RENEW}; echo; {USE}/x; echo; {USE}/profile; echo; {USE}/loud")
        again = await run(f"{USE}/x; {RENEW}")
        trace = await asyncio.to_thread(made.ok, "trace", "--json")

    told, used, profile, loud = renewed.splitlines()
    assert json.loads(told) == {
        "access_token": "moat-access-placeholder", "refresh_token": "moat-refresh-placeholder", "expires_in": 3600,
    }  # fmt: skip
    assert (used, profile, loud) == ('{"fine": true}', '{"id": ""}', '{"FINE": TRUE}!')
    spent = [
        line.split()[-1] for head in place.heads for line in head.splitlines() if line.startswith("Authorization:")
    ]
    assert spent == ["s3cr3t-access-2"] * 4
    assert [json.loads(body)["refresh_token"] for body in place.bodies if body] == [
        "s3cr3t-refresh-1",
        "s3cr3t-refresh-2",
    ]
    assert "s3cr3t" not in renewed + again + trace
