"""Where values of `secrets` in moat.yaml come from: what a plugin fetches for a run when it starts.

Such a value becomes a variable that the run can read. What can stay outside should be a grant (`CredentialProvider`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from moat.api.credentials import Host


class SecretSource(ABC):
    """One scheme of references, as `ssm` of `ssm:///prod/password`. name: the scheme. summary: one line, for people."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def describe(self, reference: str) -> str:
        """Return what fetching does with the user's rights, as "read the parameter /x with your AWS profile p".

        reference: what stands after `scheme://`. The user is asked with these words before anything is fetched, so they
        name all that is used. Does nothing else. Raises SecretFailed for a reference that is none.
        """

    @abstractmethod
    async def fetch(self, reference: str, host: Host) -> str:
        """Return the value. Called in the process of the command that the user typed, at most once a run.

        Raises SecretFailed, which never repeats what it found.
        """
