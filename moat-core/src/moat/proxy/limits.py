"""How long each stage of a connection may take, and how much of a thing is too much. Values only.

client   ─ idle ─▶ head ─▶ (CONNECT ─▶ handshake ─▶ head) ─▶ body, idle between its pieces
upstream ─ takes the body ─▶ first byte ─▶ rest of the head ─▶ body, without a limit     101 ─▶ idle between bytes

There is no limit on a whole exchange: models think for minutes, and downloads take hours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """In seconds, unless a name says otherwise. Tests shorten them; nothing else does."""

    idle_s: float = 120.0  # between requests: what nginx and Go give; clients keep theirs shorter
    head_s: float = 30.0  # from a head's first byte to its last: a slow-loris is cut, a slow line is not
    unidentified_s: float = 30.0  # from a token listener's accept to a request with a token: these share a small room
    hurried_s: float = 2.0  # the same, while that room is half full: who holds many without a token loses them soon
    handshake_s: float = 15.0  # from a tunnel's beginning to its end of handshake; who waits for a banner is told then
    body_idle_s: float = 300.0  # a client that stops in the middle of its body for longer is not coming back
    linger_s: float = 2.0  # reading on after a refusal, so that a client in the middle of its body can read the answer
    linger_bytes: int = 1_048_576
    held_bytes: int = 67_108_864  # of a run's bodies that rules must see whole, together: 16 of the largest kind
    upload_idle_s: float = 300.0  # an upstream that takes nothing of a body, and says nothing: nginx gives a minute
    first_byte_s: float = 300.0  # of an answer
    answer_head_s: float = 60.0  # from its first byte to the head's last
    upgrade_idle_s: float = 3600.0  # neither side said anything: websockets ping every minute or so, terminals do not
    half_idle_s: float = 300.0  # one side ended, the other is silent: who waits for an answer waits so long (above)
    guess_delay_s: float = 1.0  # before a wrong token is answered, once its peer has no failures left
