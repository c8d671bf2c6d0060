"""Remembers what the user has said yes to, one file each in MOAT_HOME, where no run can write.

An answer is for one file at one path with one content, and for the wishes as they were shown: a link that now leads
elsewhere, or a setting of the user's that makes something else of the file, is another question.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from moat.config.checkout import Checkout
from moat.paths import Home, write_private


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a file as it was read, and what it wants."""

    checkout: Checkout
    wishes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, object]:
        """Everything that the answer depends on."""
        return {"path": str(self.checkout.path), "sha256": self.checkout.sha256, "wishes": list(self.wishes)}

    @property
    def key(self) -> str:
        """The name of its answer, in hex."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()


def is_approved(home: Home, question: Question) -> bool:
    """Whether the user has said yes to just this. What cannot be read is no yes."""
    try:
        remembered = json.loads((home.approvals / f"{question.key}.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(remembered, dict) and question.facts.items() <= remembered.items()


def approve(home: Home, question: Question) -> None:
    """Remember a yes. Raises OSError and UsageError where it cannot be written."""
    answer = {**question.facts, "approved_at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_private(home.approvals / f"{question.key}.json", json.dumps(answer, indent=2).encode() + b"\n")
