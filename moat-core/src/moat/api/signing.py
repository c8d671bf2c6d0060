"""Requests that are signed anew on their way out, by the provider of the grant that a `Sign` rule names.

    the client's request, signed with placeholder keys ─▶ Unsigned ─▶ CredentialProvider.sign ─▶ Signed ─▶ upstream

So no key that signs is ever inside. AWS Signature Version 4 is the case that it was made for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from moat.api.errors import MoatError
from moat.api.http import Headers

_TARGET = re.compile(r"/[\x21-\x7e]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_TO_BE_SIGNED = frozenset(("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"))


class Unsignable(MoatError):
    """A request that cannot be signed. The run is answered with status, 400 or 403, and the problem as it is.

    content_type, body: the whole answer, where clients of the service show errors of a form of its own only.
    """

    def __init__(self, problem: str, *, status: int = 400, content_type: str = "", body: str = "") -> None:
        super().__init__(problem)
        self.status = 403 if status == 403 else 400
        self.content_type = content_type if content_type.isascii() and content_type.isprintable() else ""
        self.body = body


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A request as it would leave. authority: host, or host:port. target: path and query, as they are sent.

    headers: without those of the connection; Host is among them. body_sha256: lower-case hexadecimal, of the body as
    it is sent; "" where the client said itself what its body is, in the header that the rule names.
    """

    run_id: str
    method: str
    authority: str
    target: str
    headers: Headers = field(default_factory=Headers, repr=False)
    body_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Signed:
    """What the request leaves with: target, and headers that replace all others of their names; removed ones go.

    secrets: parts that no log may show and no answer may bring back. is_spent: whether the grant's key signed it; a
    request that nobody signed may be passed on as it is.
    """

    target: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    removed: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    is_spent: bool = True

    def __post_init__(self) -> None:
        if _TARGET.fullmatch(self.target) is None or "#" in self.target:
            raise MoatError("the target of a signed request is none")
        for name, value in self.headers:
            if _NAME.fullmatch(name) is None or name.lower() in _NOT_TO_BE_SIGNED:
                raise MoatError(f"{name!r} is no header that a signature may set")
            if not value.isprintable() or not value.isascii():
                raise MoatError(f"the value of {name} holds a control or non-ASCII character")
