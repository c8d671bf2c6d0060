"""Short, honest answers of the proxy's own: what was refused, by which rule, and what to do about it. No I/O.

403 policy, address     X-Moat-Blocked, X-Moat-Allow: the line   407 no or wrong token   Proxy-Authenticate: Basic
400 malformed           421 another host than the connection's  404, 405, 503           the proxy itself
502, 504 upstream       X-Moat-Error: dns, refused, unreachable, timeout, certificate, tls-version, tls, closed,
                        malformed (an answer that is no HTTP), proxy (upstream.proxy)         508 ourselves: loop
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from http import HTTPStatus

from moat.net.addresses import is_metadata
from moat.net.policy import Objection
from moat.proxy.http1 import render_response

_KEYS = {"--allow-host": "allow", "--rule": "rules", "--host-port": "host_ports"}


@dataclass(eq=False)
class Refusal(Exception):
    """One answer. reason: one line, for client and trace. kind: value of X-Moat-Blocked or X-Moat-Error.

    outcome: as in ExchangeRecord. keeps: whether the client's connection may go on. is_line_first: whether allow_line
    helps only before the rule that denies: the first that fits decides. rule: what denies, as in ExchangeRecord.
    content_type, body: the answer, where it is not the reason in a line.
    """

    status: int
    reason: str
    outcome: str = "refused"
    kind: str = ""
    allow_line: str = ""
    keeps: bool = False
    is_line_first: bool = False
    rule: str = ""
    content_type: str = ""
    body: str = ""

    @property
    def advice(self) -> str:
        """Return what to do about it, "" for nothing."""
        if not self.allow_line:
            return ""
        where = ", before it" if self.is_line_first else ""
        if not self.allow_line.startswith("--"):
            return f"to allow it, add to config.yaml: {self.allow_line}"
        written = in_moat_yaml(self.allow_line)
        also = f"; or to moat.yaml: {written}" if written else ""
        return f"to allow it, add{where}: {self.allow_line}{also}"

    def render(self, method: str = "GET") -> bytes:
        """Return the whole answer; to HEAD without its body."""
        headers, body = self.answer()
        if not self.keeps:
            headers.append(("Connection", "close"))
        head = render_response(self.status, HTTPStatus(self.status).phrase, headers)
        return head if method == "HEAD" else head + body

    def answer(self) -> tuple[list[tuple[str, str]], bytes]:
        """Return the header fields of the answer, of any version of HTTP, and its body."""
        text = f"moat: {self.reason}\n" + (f"{self.advice}\n" if self.advice else "")
        body = (self.body or text).encode("ascii", "backslashreplace")
        content_type = self.content_type or "text/plain; charset=utf-8"
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        if self.kind:
            headers.append(("X-Moat-Error" if self.status >= 500 else "X-Moat-Blocked", self.kind))
        if self.allow_line:  # many clients show only the head of an answer to CONNECT
            headers.append(("X-Moat-Allow", self.allow_line))
        if self.status == 407:  # libcurl and git come back with the token only when asked so
            headers.append(("Proxy-Authenticate", 'Basic realm="moat"'))
        return headers, body


def in_moat_yaml(flag: str) -> str:
    """Return what a moat.yaml says in the place of a flag of `moat run`, "" for what is none."""
    name, _, rest = flag.partition(" ")
    values = shlex.split(rest)
    if name not in _KEYS or len(values) != 1:
        return ""
    written = values[0] if values[0].isdecimal() else json.dumps(values[0])
    return f"network: {{{_KEYS[name]}: [{written}]}}"


def denied(objection: Objection) -> Refusal:
    """Return the 403 for what the policy does not let out."""
    line, is_first = objection.allow_line, bool(objection.rule)
    return Refusal(403, objection.reason, "denied", "policy", line, True, is_first, objection.basis)


def undialable(host: str, address: str, why: str) -> Refusal:
    """Return the 403 for a host whose address may not be dialled; the line to add goes into config.yaml."""
    reason = why if host == address else f"{host}: {why}"
    line = "" if is_metadata(address) else f"upstream: {{allow_cidrs: [{address}/{128 if ':' in address else 32}]}}"
    return Refusal(403, reason, "denied", "address", line, keeps=True)


def unidentified() -> Refusal:
    """Return the 407 for a missing, wrong or ended token; which of them is not told."""
    return Refusal(407, "this proxy needs the token of a live run", kind="token", keeps=True)


def malformed(reason: str) -> Refusal:
    """Return the 400 for what cannot be read in one way only."""
    return Refusal(400, reason, kind="malformed")


def misdirected(reason: str) -> Refusal:
    """Return the 421 for a request that names another host than its connection was made for."""
    return Refusal(421, reason, kind="authority")


def closed(why: str = "") -> Refusal:
    """Return the 503 for a run that has not proved yet that it is sealed, or is closed for the reason given."""
    return Refusal(503, why or "the run is not open yet", kind="not-open")


def crowded(limit: int) -> Refusal:
    """Return the 503 for a run that has as many connections as it may: others of its own must end first."""
    return Refusal(503, f"the run has {limit} connections already", kind="crowded")


def unreachable(reason: str, kind: str = "upstream") -> Refusal:
    """Return the 502 for an upstream that cannot be reached, verified or understood."""
    return Refusal(502, reason, "failed", kind, keeps=True)


def looped(reason: str) -> Refusal:
    """Return the 508 for an upstream that is this proxy: each round would spend a connection and a credential."""
    return Refusal(508, reason, kind="loop", keeps=True)


def silent(authority: object, limit_s: float) -> Refusal:
    """Return the 504 for an upstream that did not begin its answer; the setting goes into config.yaml."""
    return late(f"{authority} did not answer in {limit_s:g} s, which upstream.first_byte_minutes sets")


def stalled(authority: object, limit_s: float) -> Refusal:
    """Return the 504 for an upstream that stopped in the middle of an upload; the setting goes into config.yaml."""
    return late(f"{authority} took nothing of the request for {limit_s:g} s, which upstream.upload_idle_minutes sets")


def late(reason: str) -> Refusal:
    """Return the 504 for an upstream that took too long."""
    return Refusal(504, reason, "failed", "timeout", keeps=True)
