"""Answers that must be whole before the client gets any of them: rewritten ones, and those that hand out tokens. Pure.

    head ─▶ task.holding(response) ─▶ None: it streams, as most do │ Holding │ Refusal
    payload ─▶ holding.feed ─▶ False: too much ─▶ holding.give_up ─▶ what was held, as it came │ Refusal
               holding.finish ─▶ the body without its coding

A stream is held only where a rule asks for its kind, and then for a bounded time (`server/settle.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from moat.api.http import RequestHead
from moat.api.rules import CaptureToken, Instead, RewriteResponse, Rule
from moat.net.paths import decoded_path
from moat.proxy.capture import is_readable, kind_of, uncaught, unsearchable
from moat.proxy.decode import Decoder, decoder_for, named_codings, quotable
from moat.proxy.holds import Holds
from moat.proxy.http1 import NO_BODY, Response
from moat.proxy.inject import matches, may_match
from moat.proxy.refusal import Refusal
from moat.proxy.scrub import Spent

_STREAMS = ("text/event-stream", "application/grpc")
_PARTIAL = 206
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class WholeTask:
    """What is to be done to the answer of one request. spent: of its run; learns the tokens that are caught.

    holds: of its run too.
    key: the same for requests that spend the same refresh token, and for no others; "" where nothing is captured.
    """

    rewrites: tuple[RewriteResponse, ...] = ()
    capture: CaptureToken | None = None
    spent: Spent = field(default_factory=Spent, repr=False)
    key: str = ""
    holds: Holds = field(default_factory=Holds, repr=False)

    @property
    def reserved_bytes(self) -> int:
        """How much must be free before the request leaves: an answer with tokens cannot be asked for again."""
        return 0 if self.capture is None else 2 * self.capture.limit_bytes  # as it came, and decoded

    def holding(self, response: Response) -> Holding | None:
        """Return what holds an answer, None for one that is passed on as it comes. Raises Refusal."""
        if response.framing == NO_BODY:
            return None
        rewrites = tuple(rule for rule in self.rewrites if _fits(rule, response))
        capture = self.capture
        if capture is not None and not is_readable(response.head.headers):
            if response.head.status < 400:
                raise unsearchable(capture, response.head.headers)
            capture = None  # an error page
        if not rewrites and capture is None:
            return None
        return _begun(Holding(rewrites, capture), response)


@dataclass(slots=True)
class Holding:
    """One answer as it is held. rewrites, capture: the rules that fit it. raw: what was fed so far."""

    rewrites: tuple[RewriteResponse, ...]
    capture: CaptureToken | None
    raw: bytearray = field(default_factory=bytearray, repr=False)
    _body: bytearray = field(default_factory=bytearray, repr=False)
    _decoder: Decoder | None = None

    @property
    def is_body_needed(self) -> bool:
        """Whether any rule looks at the body: where one replaces it, only what comes after that does."""
        return self.capture is not None or not any(isinstance(rule.how, Instead) for rule in self.rewrites)

    @property
    def limit_bytes(self) -> int:
        """How much is held, decoded and as it came."""
        limits = [rule.limit_bytes for rule in self.rewrites]
        return min(limits) if self.capture is None else min(*limits, self.capture.limit_bytes, _NO_LIMIT)

    @property
    def held_bytes(self) -> int:
        """How much is held now."""
        return len(self.raw) + len(self._body)

    def feed(self, payload: bytes) -> bool:
        """Take a piece of the body; False when it is more than is held. Raises Malformed for a broken coding."""
        self.raw += payload
        if self._decoder is None:
            self._body += payload
        else:
            self._body += self._decoder.feed(payload)
            while self._decoder.has_more and len(self._body) <= self.limit_bytes:
                self._body += self._decoder.feed(b"")
        return max(len(self.raw), len(self._body)) <= self.limit_bytes

    def finish(self) -> bytes:
        """Return the whole body. Raises Malformed when its coding had not ended."""
        if self._decoder is not None:
            self._decoder.finish()
        return bytes(self._body)

    def give_up(self, problem: str) -> None:
        """Take note that the body cannot be held, since problem. Raises Refusal where it may not pass as it came."""
        if self.capture is not None:
            raise uncaught(self.capture, problem)
        if any(rule.otherwise == "refuse" for rule in self.rewrites):
            raise Refusal(502, f"the answer must be rewritten and cannot be: {problem}", "failed", "rewrite")

    def decode(self, decoder: Decoder) -> None:
        """Have what is fed decoded."""
        self._decoder = decoder


def whole_task(rules: Iterable[Rule], head: RequestHead, spent: Spent, renewed: Sequence[str] = ()) -> WholeTask | None:
    """Return what is to be done to the answer, None for nothing. rules: those for head's authority.

    head: as the client sent it. renewed: grants whose placeholder the request may hold: their answers are caught
    whatever the path. So are those of a path that servers may read in two ways: that a rule fits must be certain to
    pass a token on, not to catch it.
    """
    rules = tuple(rules)
    ours = [rule for rule in rules if isinstance(rule, RewriteResponse | CaptureToken)]
    if not ours or head.authority.scheme != "https":
        return None
    path = decoded_path(head.path)
    rewrites, capture = [], None
    for rule in ours:
        if isinstance(rule, RewriteResponse):
            rewrites += [rule] if matches(rule.match, head, path) else []
        elif capture is None:
            is_near = rule.grant in renewed or _may_be(rule, head, path)
            capture = rule if is_near else None
    if not rewrites and capture is None:
        return None
    return WholeTask(tuple(rewrites), capture, spent, "" if capture is None else _key(capture, rules, head))


def _key(capture: CaptureToken, rules: Sequence[Rule], head: RequestHead) -> str:
    """Return a digest of everything that says which refresh token is spent where."""
    values = [getattr(rule, "value", "") for rule in rules if rule.grant == capture.grant]
    parts = (str(head.authority), head.method, head.target, capture.grant, *values)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _may_be(rule: CaptureToken, head: RequestHead, path: str | None) -> bool:
    """Whether some server may take head for what rule is for: case, final slashes and `;…` aside."""
    if path is None:
        return True
    near = "/".join(segment.partition(";")[0] for segment in path.lower().split("/")).rstrip("/")
    loose = replace(rule.match, methods=(), paths=tuple(text.lower().rstrip("/") for text in rule.match.paths))
    is_method = not rule.match.methods or head.method.upper() in rule.match.methods
    return is_method and may_match(loose, head, near)


def _begun(holding: Holding, response: Response) -> Holding | None:
    """Return holding ready to be fed, None where the answer passes after all. Raises Refusal."""
    if not holding.is_body_needed:
        return holding
    coding = named_codings(response.head.headers)
    decoder = decoder_for(coding) if coding else None
    if response.head.status == _PARTIAL:
        problem = "it is a part of one"
    elif coding and decoder is None:
        problem = f"its coding {quotable(coding)!r} is not known"
    elif response.framing.kind == "length" and response.framing.length > holding.limit_bytes:
        problem = f"it is longer than {holding.limit_bytes} bytes"
    else:
        if decoder is not None:
            holding.decode(decoder)
        return holding
    holding.give_up(problem)
    return None


def _fits(rule: RewriteResponse, response: Response) -> bool:
    if rule.statuses and response.head.status not in rule.statuses:
        return False
    kind = kind_of(response.head.headers)
    return kind in rule.kinds if rule.kinds else not kind.startswith(_STREAMS)
