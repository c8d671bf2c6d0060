"""What is to be signed, and what was, as JSON and back: how both cross between worker and daemon.

    unsigned: {"run_id", "method", "authority", "target", "headers": [[name, value], …], "body_sha256"}
    signed:   {"target", "headers": [[name, value], …], "removed": […], "secrets": […], "is_spent"}

Raises KeyError, TypeError, ValueError and MoatError for what is none; no text of them goes further.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from moat.api.http import Headers
from moat.api.signing import Signed, Unsigned

Wire: TypeAlias = dict[str, Any]  # one JSON object; the readers check what they take out


def unsigned_to_wire(request: Unsigned) -> Wire:
    """Return request as a JSON object."""
    return {"run_id": request.run_id, "method": request.method, "authority": request.authority,
            "target": request.target, "headers": [list(pair) for pair in request.headers],
            "body_sha256": request.body_sha256}  # fmt: skip


def unsigned_from_wire(wire: Wire) -> Unsigned:
    """Return the request that wire holds."""
    run_id, method, authority = _text(wire["run_id"]), _text(wire["method"]), _text(wire["authority"])
    headers = Headers(_pairs(wire["headers"]))
    return Unsigned(run_id, method, authority, _text(wire["target"]), headers, _text(wire["body_sha256"]))


def signed_to_wire(signed: Signed) -> Wire:
    """Return signed as a JSON object."""
    return {"target": signed.target, "headers": [list(pair) for pair in signed.headers],
            "removed": list(signed.removed), "secrets": list(signed.secrets), "is_spent": signed.is_spent}  # fmt: skip


def signed_from_wire(wire: Wire) -> Signed:
    """Return what wire holds of a signed request."""
    removed, secrets = (tuple(_text(each) for each in wire[name]) for name in ("removed", "secrets"))
    return Signed(_text(wire["target"]), _pairs(wire["headers"]), removed, secrets, wire["is_spent"] is not False)


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple((_text(name), _text(each)) for name, each in value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
