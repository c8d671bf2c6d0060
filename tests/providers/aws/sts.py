"""A small STS, and the portal of SSO beside it, on loopback. Checks each signature, and keeps what it was sent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from support.sigv4 import is_signed

CREDENTIALS = """<Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>s3cr3t</SecretAccessKey>
<SessionToken>s3cr3t</SessionToken><Expiration>2031-01-01T00:00:00Z</Expiration></Credentials>"""
DENIAL = "<ErrorResponse><Error><Type>Sender</Type><Code>CODE</Code><Message>no</Message></Error></ErrorResponse>"


@dataclass
class FakeSts:
    """denies: whether it refuses, with code. denies_tags: whether it refuses sessions that are tagged.

    asked: the form fields of each request. authorizations: their signatures. secrets: by the ids of their keys.
    sso: the access token that the portal knows; its other keys are no one's.
    """

    url: str = ""
    denies: bool = False
    denies_tags: bool = False
    code: str = "AccessDenied"
    asked: list[dict[str, str]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=lambda: {"AKIAEXAMPLE": "s3cr3t"})
    sso: str = "sso-token"

    def objection(self, headers: dict[str, str], body: bytes) -> str:
        """Return the code of the error that a request is answered with, or ""."""
        if self.denies or (self.denies_tags and b"Tags.member.1.Key" in body):
            return self.code
        secret = self.secrets.get(headers["authorization"].partition("Credential=")[2].partition("/")[0], "")
        digest = hashlib.sha256(body).hexdigest()
        is_known = secret and is_signed(secret, "POST", f"{self.url}/", headers, digest, is_s3=False)
        return "" if is_known else "SignatureDoesNotMatch"


@contextlib.contextmanager
def running_sts(*, denies: bool = False, denies_tags: bool = False) -> Iterator[FakeSts]:
    """Run it in a thread."""
    sts = FakeSts(denies=denies, denies_tags=denies_tags)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sts.asked.append(dict(parse_qsl(body.decode())))
            sts.authorizations.append(self.headers.get("Authorization", ""))
            code = sts.objection({name.lower(): value for name, value in self.headers.items()}, body)
            action = sts.asked[-1]["Action"]
            who = f"<Arn>arn:aws:iam::123456789012:user/dev</Arn>{CREDENTIALS}"
            answer = f"<{action}Response><{action}Result>{who}</{action}Result></{action}Response>"
            self.send(403 if code else 200, "text/xml", DENIAL.replace("CODE", code) if code else answer)

        def do_GET(self) -> None:
            """Answer as the portal of SSO (GetRoleCredentials)."""
            if self.headers.get("x-amz-sso_bearer_token") != sts.sso:
                self.send(401, "application/json", json.dumps({"message": "Session token not found or invalid"}))
                return
            keys = {"accessKeyId": "ASIAOFSSO", "secretAccessKey": "s3cr3t-of-sso", "sessionToken": "s3cr3t-of-sso"}
            sts.secrets["ASIAOFSSO"] = "s3cr3t-of-sso"
            answer = json.dumps({"roleCredentials": {**keys, "expiration": 1_924_992_000_000}})
            self.send(200, "application/json", answer)

        def send(self, status: int, kind: str, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if status == 401:
                self.send_header("x-amzn-ErrorType", "UnauthorizedException")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        sts.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield sts
        finally:
            server.shutdown()
            thread.join()
