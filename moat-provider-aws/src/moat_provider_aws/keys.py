"""What STS or a profile gives for a run, and why it gave nothing. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from moat.api import GrantFailed


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials of a run. session_token: "" for a user's own keys, which sign in the daemon and never enter a run."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: datetime


class NoSession(GrantFailed):
    """There is no session. code: as AWS names it. is_final: whether to ask again is of no use."""

    def __init__(self, problem: str, hint: str, code: str, *, is_final: bool) -> None:
        super().__init__(problem, hint=hint)
        self.code = code
        self.is_final = is_final
