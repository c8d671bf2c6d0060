"""A small STS: answers AssumeRole on loopback and keeps what it was sent."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

ANSWER = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>s3cr3t</SecretAccessKey><SessionToken>s3cr3t</SessionToken>
<Expiration>2031-01-01T00:00:00Z</Expiration></Credentials><AssumedRoleUser><AssumedRoleId>A:b</AssumedRoleId>
<Arn>arn:aws:sts::123456789012:assumed-role/a/b</Arn></AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"""
DENIAL = "<ErrorResponse><Error><Type>Sender</Type><Code>CODE</Code><Message>no</Message></Error></ErrorResponse>"


@dataclass
class FakeSts:
    """denies: whether it refuses, with code. denies_tags: whether it refuses sessions that are tagged.

    asked: the form fields of each request. authorizations: their signatures.
    """

    url: str = ""
    denies: bool = False
    denies_tags: bool = False
    code: str = "AccessDenied"
    asked: list[dict[str, str]] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)


@contextlib.contextmanager
def running_sts(*, denies: bool = False, denies_tags: bool = False) -> Iterator[FakeSts]:
    """Run an STS in a thread."""
    sts = FakeSts(denies=denies, denies_tags=denies_tags)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            sts.asked.append(dict(parse_qsl(body)))
            sts.authorizations.append(self.headers.get("Authorization", ""))
            is_denied = sts.denies or (sts.denies_tags and "Tags.member.1.Key" in sts.asked[-1])
            answer = (DENIAL.replace("CODE", sts.code) if is_denied else ANSWER).encode()
            self.send_response(403 if is_denied else 200)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

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
