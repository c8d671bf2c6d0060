"""What a look at one part of this machine found: a value for `moat doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Check:
    """One part's state. name: what was looked at. hint: what to type, "" where there is nothing to do."""

    name: str
    state: State
    detail: str
    hint: str = ""
