"""Names and identifiers: made here, checked here, at every edge they cross."""

from __future__ import annotations

import os
import re

from moat.api.errors import UsageError

RUN_ID = re.compile(r"run_[0-9a-f]{12}")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# Of variables: what they hold is a credential, by the look of it.
TELLING_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|PRIVATE_KEY|CREDENTIALS?)$", re.IGNORECASE)

_FIRST = ("amber", "brisk", "calm", "clear", "crisp", "early", "fresh", "gentle", "keen", "lucid", "merry", "noble",
          "plain", "quiet", "rapid", "solid", "spry", "sunny", "tidy", "vivid")  # fmt: skip
_SECOND = ("badger", "beacon", "birch", "comet", "crane", "ferry", "finch", "harbor", "heron", "lark", "maple", "otter",
           "pebble", "pine", "raven", "reef", "river", "sparrow", "tower", "willow")  # fmt: skip


def new_run_id() -> str:
    """Return a fresh run id: `run_` and 12 lower-case hex digits."""
    return f"run_{os.urandom(6).hex()}"


def new_name() -> str:
    """Return a readable run name, for example `calm-otter`; not unique by itself."""
    return f"{_any_of(_FIRST)}-{_any_of(_SECOND)}"


def new_token() -> str:
    """Return a secret of 256 bits as 64 hex digits."""
    return os.urandom(32).hex()  # as secrets.token_hex, whose module brings all of random to every command


def _any_of(words: tuple[str, ...]) -> str:
    return words[int.from_bytes(os.urandom(8)) % len(words)]


def checked_run_id(text: str) -> str:
    """Return text if it is a run id; raise UsageError otherwise."""
    if RUN_ID.fullmatch(text) is None:
        raise UsageError(f"{text!r} is not a run id", hint="run: moat list")
    return text


def checked_name(text: str, what: str) -> str:
    """Return text if it may name a grant or a run; raise UsageError, saying what it should name, otherwise."""
    if NAME.fullmatch(text) is None:
        raise UsageError(
            f"{text!r} cannot name a {what}", hint="use lower-case letters, digits, - and _, at most 63 characters"
        )
    return text


def checked_profile(text: str) -> str:
    """Return the profile that text names, "" for the default one; raise UsageError when it cannot be a name."""
    return "" if text in ("", "default") else checked_name(text, "profile")
