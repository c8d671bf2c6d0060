"""The credential store: one encrypted file per grant, under one lock, every write whole or not at all.

May not ask, print, or know what a credential is for. Blocking (files, keyring): async callers use a thread.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from moat.api.credentials import Credential
from moat.api.errors import GrantMissing, StoreCorrupt, StoreError
from moat.ids import NAME, checked_name, checked_profile
from moat.paths import Home, private_folder, write_private
from moat.store import cipher
from moat.store.key import KeyHolder, Keyring, Warn

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GrantInfo:
    """What is known about a stored credential without its key. Times are ISO 8601 in UTC, empty when unknown.

    problem: why the file cannot be described; everything but the name is then empty.
    """

    name: str
    source: str = ""
    granted_at: str = ""
    expires_at: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


class CredentialStore:
    """The credentials of one profile of one installation. Looking creates nothing; the first save makes the key.

    profile: "" is the default one. A file of one profile is no credential in another.
    """

    def __init__(
        self,
        home: Home,
        *,
        env: Mapping[str, str] | None = None,
        warn: Warn | None = None,
        keyring: Keyring | None = None,
        profile: str = "",
    ) -> None:
        self._home = home
        self._profile = checked_profile(profile)
        self._folder = home.credentials_of(self._profile)
        self._key = KeyHolder(home, os.environ if env is None else env, warn or _log_warning, keyring)

    def in_profile(self, profile: str) -> CredentialStore:
        """Return the store of another profile; the key is the installation's."""
        other = copy.copy(self)
        other._profile = checked_profile(profile)
        other._folder = self._home.credentials_of(other._profile)
        return other

    def save(self, credential: Credential) -> None:
        """Encrypt and keep a credential under its provider's name, replacing an older one.

        Raises StoreLocked when this installation's key cannot be read now; nothing is then changed.
        """
        name = checked_name(credential.provider, "grant")
        facts: dict[str, object] = {
            "source": credential.source,
            "granted_at": _iso(datetime.now(UTC)),
            "expires_at": _iso(credential.expires_at) if credential.expires_at else "",
            "metadata": dict(credential.metadata),
        }
        if self._profile:
            facts["profile"] = self._profile
        with self._locked():
            data = cipher.seal(self._key.get_or_make(), name, facts, credential.secret.encode())
            write_private(self._path(name), data)

    def load(self, name: str) -> Credential:
        """Return a credential, decrypted and proven.

        Raises GrantMissing, StoreLocked, StoreCorrupt or StoreError (absent, locked, spoilt, unreadable).
        """
        data = self._read(name)
        header, secret = cipher.unseal(self._key.get(), name, data)
        info = self._described(name, header)
        expires = datetime.fromisoformat(info.expires_at) if info.expires_at else None
        return Credential(name, secret.decode(), info.source, info.metadata, expires)

    def describe(self, name: str) -> GrantInfo:
        """Return what is known about a credential, without its key. Raises GrantMissing, StoreCorrupt, StoreError."""
        return self._described(name, cipher.read_header(name, self._read(name)))

    def mark(self, name: str) -> str:
        """Return what tells a credential from any before it, without the key. Raises GrantMissing, StoreError."""
        return hashlib.sha256(self._read(name)).hexdigest()  # each is sealed with a nonce of its own

    def describe_all(self) -> list[GrantInfo]:
        """Return every stored credential's description, by name; unreadable ones say why."""
        if not self._folder.is_dir():
            return []
        names = sorted(path.stem for path in self._folder.glob("*.json") if NAME.fullmatch(path.stem))
        return [self._described_or_not(name) for name in names]

    def remove(self, name: str) -> None:
        """Forget a credential. Raises GrantMissing when there is none."""
        path = self._path(checked_name(name, "grant"))
        if not path.exists():
            raise _missing(name, self._profile)
        with self._locked():
            path.unlink(missing_ok=True)

    def _described_or_not(self, name: str) -> GrantInfo:
        try:
            return self.describe(name)
        except StoreError as failure:
            return GrantInfo(name, problem=failure.problem)

    def _read(self, name: str) -> bytes:
        path = self._path(checked_name(name, "grant"))
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise _missing(name, self._profile) from None
        except OSError as failure:
            why = os.strerror(failure.errno or 0)
            raise StoreError(f"the stored credential {path} cannot be read: {why}") from None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _described(self, name: str, header: Mapping[str, object]) -> GrantInfo:
        info = _described(name, header)
        if header.get("profile", "") != self._profile:
            raise StoreCorrupt(
                f"the stored credential {name} cannot be read: it was made for another profile",
                hint=f"run: moat grant {name}",
            )
        return info

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the installation's store lock: two first grants at once make one key."""
        private_folder(self._home.root)
        descriptor = os.open(self._home.root / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _described(name: str, header: Mapping[str, object]) -> GrantInfo:
    try:
        metadata = header["metadata"]
        if not isinstance(metadata, dict):
            raise TypeError
        info = GrantInfo(
            name,
            source=str(header["source"]),
            granted_at=str(header["granted_at"]),
            expires_at=str(header["expires_at"]),
            metadata={str(key): str(value) for key, value in metadata.items()},
        )
        for moment in (info.granted_at, info.expires_at):
            datetime.fromisoformat(moment or "2000-01-01")
    except (KeyError, TypeError, ValueError):
        raise StoreCorrupt(
            f"the stored credential {name} cannot be read: its header is incomplete", hint=f"run: moat grant {name}"
        ) from None
    return info


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _missing(name: str, profile: str) -> GrantMissing:
    if profile:
        problem = f"no {name} credential is stored in the profile {profile}"
        return GrantMissing(problem, hint=f"run: moat grant --profile {profile} {name}")
    return GrantMissing(f"no {name} credential is stored", hint=f"run: moat grant {name}")


def _log_warning(text: str) -> None:
    log.warning("store warning", extra={"warning": text})
