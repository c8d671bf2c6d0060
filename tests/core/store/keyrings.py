"""A keyring that a test can lock, empty and watch."""

from __future__ import annotations

from dataclasses import dataclass, field

from moat.store.keyring import KeyringFailed


@dataclass
class FakeKeyring:
    """failure: raised by every call while it is set. puts: how often something was stored."""

    entries: dict[str, str] = field(default_factory=dict)
    failure: KeyringFailed | None = None
    puts: int = 0

    def get(self, account: str) -> str | None:
        if self.failure:
            raise self.failure
        return self.entries.get(account)

    def put(self, account: str, value: str) -> None:
        if self.failure:
            raise self.failure
        self.puts += 1
        self.entries[account] = value

    def remove(self, account: str) -> bool:
        if self.failure:
            raise self.failure
        return self.entries.pop(account, None) is not None
