"""The store's key: where it lives, and that there is never a second one.

    first grant ──▶ keyring takes it? ──yes──▶ store.json: keyring, account, fingerprint
                                      ──no───▶ file `key`, 0600, a warning; store.json: file, fingerprint
    ever after  ──▶ only the place that store.json names, and only the key with that fingerprint, or StoreLocked

`store.json` holds no secret. The account in the keyring is made of a random installation id, so two MOAT_HOMEs of one
user never share or overwrite a key. Callers hold the store's lock while `get_or_make` runs.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from moat.api.errors import StoreCorrupt, StoreError, StoreLocked
from moat.paths import Home, write_private
from moat.store.cipher import KEY_BYTES, fingerprint, new_key
from moat.store.keyring import KeyringFailed, SystemKeyring

Warn = Callable[[str], None]


class Keyring(Protocol):
    """What is needed of a keyring; both raise KeyringFailed."""

    def get(self, account: str) -> str | None:
        """Return what is stored for account, or None."""
        ...

    def put(self, account: str, value: str) -> None:
        """Store value for account."""
        ...

    def remove(self, account: str) -> bool:
        """Remove what is stored for account, and return whether there was something."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """What store.json says. lives_in: "keyring" or "file"."""

    lives_in: str
    installation: str
    fingerprint: str

    @property
    def account(self) -> str:
        """The name of the key in the keyring."""
        return f"store-{self.installation}"


class KeyHolder:
    """One installation's key. warn is told, once, when a new key has to live in a file without being asked to."""

    def __init__(self, home: Home, env: Mapping[str, str], warn: Warn, keyring: Keyring | None = None) -> None:
        self._record = home.root / "store.json"
        self._file = home.root / "key"
        self._credentials = home.credentials
        self._profiles = home.root / "profiles"
        self._wants_file = env.get("MOAT_KEYRING_BACKEND") == "file"
        self._warn = warn
        self._keyring: Keyring = keyring or SystemKeyring()

    def get(self) -> bytes:
        """Return the key. Raises StoreLocked when it cannot be read now, StoreCorrupt when store.json is spoilt."""
        place = self._place()
        if place is None:
            raise StoreLocked(f"{self._record} is missing: the store's key is unknown", hint=self._start_over())
        return self._read(place)

    def get_or_make(self) -> bytes:
        """Return the key, made now when this installation never had one. Raises like get."""
        place = self._place()
        if place is not None:
            return self._read(place)
        if any(self._credentials.glob("*.json")) or any(self._profiles.glob("*/*.json")):
            return self.get()  # raises: a new key could never open what is already there
        return self._make()

    def forget(self) -> bool:
        """Remove the key from the keyring and return whether it was there. A key in a file goes with its folder.

        Raises StoreLocked when the keyring cannot be used, StoreCorrupt when store.json is spoilt.
        """
        place = self._place()
        if place is None or place.lives_in != "keyring":
            return False
        try:
            return self._keyring.remove(place.account)
        except KeyringFailed as failure:
            problem = f"the keyring that holds the store's key cannot be used: {failure}"
            raise StoreLocked(problem, hint=f"unlock it, or remove {place.account!r} of 'moat' there by hand") from None

    def _make(self) -> bytes:
        installation = secrets.token_hex(8)
        if self._file.exists():  # a crash between the two writes of an earlier first grant
            key = self._read_file()
            self._remember(Place("file", installation, fingerprint(key)))
            return key
        key = new_key()
        kept = Place("keyring", installation, fingerprint(key))
        if self._wants_file or not self._entrusted(kept, key):
            kept = Place("file", installation, kept.fingerprint)
            write_private(self._file, base64.b64encode(key) + b"\n")
        self._remember(kept)
        return key

    def _entrusted(self, place: Place, key: bytes) -> bool:
        try:
            self._keyring.put(place.account, base64.b64encode(key).decode())
        except KeyringFailed as failure:
            self._warn(f"no usable keyring ({failure}): the store's key is kept in {self._file}, readable by you only")
            return False
        return True

    def _read(self, place: Place) -> bytes:
        key = self._read_file() if place.lives_in == "file" else self._read_keyring(place)
        if fingerprint(key) != place.fingerprint:
            raise StoreLocked(f"the key in the {place.lives_in} is not this store's", hint=self._start_over())
        return key

    def _read_keyring(self, place: Place) -> bytes:
        if self._wants_file:
            raise StoreLocked(
                "the store's key lives in the keyring, which MOAT_KEYRING_BACKEND=file forbids",
                hint="run: unset MOAT_KEYRING_BACKEND",
            )
        try:
            text = self._keyring.get(place.account)
        except KeyringFailed as failure:
            raise StoreLocked(
                f"the keyring that holds the store's key cannot be used: {failure}",
                hint="unlock the keyring (log in to the desktop session it belongs to), then try again",
            ) from None
        if text is None:
            raise StoreLocked("the keyring no longer holds the store's key", hint=self._start_over())
        return _decoded(text, "the keyring", self._start_over())

    def _read_file(self) -> bytes:
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise StoreLocked(f"the store's key {self._file} is gone", hint=self._start_over()) from None
        except OSError as failure:
            why = os.strerror(failure.errno or 0)
            raise StoreLocked(f"the store's key {self._file} cannot be read: {why}", hint="see its owner") from None
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise StoreLocked(f"{self._file} is open to other users", hint=f"run: chmod 600 {self._file}")
            return _decoded(file.read(1024).decode("ascii", "replace"), str(self._file), self._start_over())

    def _place(self) -> Place | None:
        try:
            entry = json.loads(self._record.read_bytes())
            place = Place(entry["lives_in"], entry["installation"], entry["fingerprint"])
        except FileNotFoundError:
            return None
        except OSError as failure:
            raise StoreError(f"{self._record} cannot be read: {os.strerror(failure.errno or 0)}") from None
        except (ValueError, KeyError, TypeError):
            raise StoreCorrupt(f"{self._record} is not what moat wrote", hint=self._start_over()) from None
        if place.lives_in not in ("keyring", "file"):
            raise StoreCorrupt(f"{self._record} names an unknown place {place.lives_in!r}", hint=self._start_over())
        return place

    def _remember(self, place: Place) -> None:
        write_private(self._record, json.dumps({"version": 1, **asdict(place)}, indent=1).encode() + b"\n")

    def _start_over(self) -> str:
        doomed: list[Path] = [self._credentials, self._record, self._file]
        doomed += [self._profiles] * self._profiles.is_dir()
        return f"bring it back, or start over: rm -rf {' '.join(map(str, doomed))} and grant again"


def _decoded(text: str, where: str, hint: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise StoreLocked(f"what {where} holds is not the store's key", hint=hint)
    return key
