"""Remembers what the user has said yes to, one file for each moat.yaml in MOAT_HOME, where no run can write.

An answer is for one file at one path with one content, and for the wishes as they were shown: a link that now leads
elsewhere, or a setting of the user's that makes something else of the file, is another question.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from moat.config.checkout import Checkout
from moat.paths import Home, write_private


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a file as it was read, and what it wants."""

    checkout: Checkout
    wishes: tuple[str, ...]

    @property
    def subject(self) -> dict[str, str]:
        """The file that it is about."""
        return {"path": str(self.checkout.path), "sha256": self.checkout.sha256}


def is_approved(home: Home, question: Question) -> bool:
    """Whether the user has said yes to each of these wishes of this file."""
    return set(question.wishes) <= _granted(home, question)


def approve(home: Home, question: Question) -> None:
    """Remember a yes, beside earlier ones to the same file. Raises what `paths.UNWRITABLE` names."""
    granted = sorted(_granted(home, question) | set(question.wishes))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    answer = {**question.subject, "granted": granted, "approved_at": now}
    write_private(_place(home, question), json.dumps(answer, indent=2).encode() + b"\n")


def _granted(home: Home, question: Question) -> set[str]:
    """Return what this file was granted. What cannot be read is no yes."""
    try:
        remembered = json.loads(_place(home, question).read_bytes())
    except (OSError, ValueError, RecursionError):
        return set()
    if not isinstance(remembered, dict) or not question.subject.items() <= remembered.items():
        return set()
    granted = remembered.get("granted")
    return {wish for wish in granted if isinstance(wish, str)} if isinstance(granted, list) else set()


def _place(home: Home, question: Question) -> Path:
    name = hashlib.sha256(json.dumps(question.subject, sort_keys=True).encode()).hexdigest()
    return home.approvals / f"{name}.json"
