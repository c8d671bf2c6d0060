"""The key that signs the audit, and what is remembered beside it, apart from the log: in a keyring where there is one.

    keyring   account audit-<16 hex of the home's path>  {"key", "counter", "seq", "hash"}   else the file audit.key
    audit.json   {"version", "lives_in", "account", "public_key"}   no secret; says where to look, and proves nothing

The account follows from the path, so that who removes everything in MOAT_HOME leaves the memory of it. Blocking.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from moat.api.errors import StoreCorrupt, StoreLocked
from moat.audit.chain import Tip
from moat.audit.heads import KEY_BYTES, Anchor, public_key_of
from moat.paths import Home, write_private
from moat.store.key import Keyring
from moat.store.keyring import KeyringFailed, NoKeyring, SystemKeyring
from moat.trace.values import decode, parsed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """What audit.json says. lives_in: "keyring" or "file". public_key: hex."""

    lives_in: str
    account: str
    public_key: str


@dataclass(frozen=True, slots=True)
class Secret:
    """The private key, and what was last remembered beside it."""

    seed: bytes = field(repr=False)
    anchor: Anchor = field(default_factory=Anchor)


class AuditKeys:
    """One installation's key for its audit. wants_file: whether the user wants no keyring."""

    def __init__(self, home: Home, env: Mapping[str, str], keyring: Keyring | None = None) -> None:
        self._record = home.root / "audit.json"
        self._file = home.root / "audit.key"
        self._account = f"audit-{hashlib.sha256(str(home.root.resolve()).encode()).hexdigest()[:16]}"
        self.wants_file = env.get("MOAT_KEYRING_BACKEND") == "file"
        self._keyring: Keyring = keyring or SystemKeyring()

    @property
    def place(self) -> Place | None:
        """Where the key lives as far as that is written down, None for nowhere yet. Asks no keyring."""
        try:
            return decode(Place, parsed(self._record.read_bytes()))
        except (OSError, ValueError):
            return None

    def look(self) -> Secret | None:
        """Return the key and what is beside it, None where there never was one; none is made.

        Raises StoreLocked where it cannot be read now, StoreCorrupt where it is gone or spoilt.
        """
        place = self.place
        if place is not None:
            return self._read(place)
        return self._found()

    def obtain(self) -> Secret:
        """Return the key, made now when there never was one. Raises as look does, and OSError."""
        if (known := self.look()) is not None:
            return known
        secret = Secret(os.urandom(KEY_BYTES))
        try:
            place = Place("file" if self.wants_file else "keyring", self._account, public_key_of(secret.seed))
            self._write(place, secret)
        except NoKeyring as failure:
            log.warning("no keyring: the audit's key is kept in a file", extra={"problem": str(failure)})
            place = Place("file", self._account, place.public_key)
            self._write(place, secret)
        except KeyringFailed as failure:
            raise _locked(failure) from None
        self._remember_place(place)
        return secret

    def remember(self, secret: Secret) -> None:
        """Keep what is beside the key. Raises StoreLocked, StoreCorrupt, OSError."""
        if (place := self.place) is None:
            raise StoreCorrupt(f"{self._record} is gone")
        try:
            self._write(place, secret)
        except KeyringFailed as failure:
            raise _locked(failure) from None

    def forget(self) -> bool:
        """Remove the key from the keyring, and return whether it was there. Raises StoreLocked."""
        place = self.place
        if place is None or place.lives_in != "keyring":
            return False
        try:
            return self._keyring.remove(place.account)
        except KeyringFailed as failure:
            raise _locked(failure) from None

    def _found(self) -> Secret | None:
        """Look where the key would be, should audit.json be lost."""
        if self._file.exists():
            place = Place("file", self._account, "")
        elif self.wants_file or not self._is_in_keyring():
            return None
        else:
            place = Place("keyring", self._account, "")
        secret = self._read(place)
        self._remember_place(Place(place.lives_in, place.account, public_key_of(secret.seed)))
        return secret

    def _is_in_keyring(self) -> bool:
        try:
            return self._keyring.get(self._account) is not None
        except NoKeyring:
            return False
        except KeyringFailed as failure:
            raise _locked(failure) from None

    def _read(self, place: Place) -> Secret:
        try:
            text = self._file.read_text() if place.lives_in == "file" else self._from_keyring(place)
        except FileNotFoundError:
            text = None
        except (OSError, UnicodeDecodeError) as failure:
            raise StoreLocked(f"the audit's key {self._file} cannot be read: {failure}") from None
        if text is None:
            problem = f"the audit's key is gone from the {place.lives_in}"
            raise StoreCorrupt(problem, hint=f"bring it back, or begin a new audit: remove {self._record}")
        return _secret_of(text)

    def _from_keyring(self, place: Place) -> str | None:
        if self.wants_file:
            problem = "the audit's key lives in the keyring, which MOAT_KEYRING_BACKEND=file forbids"
            raise StoreLocked(problem, hint="run: unset MOAT_KEYRING_BACKEND")
        try:
            return self._keyring.get(place.account)
        except KeyringFailed as failure:
            raise _locked(failure) from None

    def _write(self, place: Place, secret: Secret) -> None:
        anchor = secret.anchor
        value = {"key": base64.b64encode(secret.seed).decode(), "counter": anchor.counter,
                 "seq": anchor.tip.seq, "hash": anchor.tip.hash}  # fmt: skip
        if place.lives_in == "file":
            write_private(self._file, json.dumps(value).encode() + b"\n")
        else:
            self._keyring.put(place.account, json.dumps(value))

    def _remember_place(self, place: Place) -> None:
        write_private(self._record, json.dumps({"version": 1, **asdict(place)}, indent=1).encode() + b"\n")


def _secret_of(text: str) -> Secret:
    try:
        value = json.loads(text)
        seed = base64.b64decode(value["key"], validate=True)
        if len(seed) != KEY_BYTES:
            raise ValueError
        return Secret(seed, Anchor(int(value["counter"]), Tip(int(value["seq"]), str(value["hash"]))))
    except (ValueError, KeyError, TypeError):
        raise StoreCorrupt("what is kept as the audit's key is none") from None


def _locked(failure: KeyringFailed) -> StoreLocked:
    problem = f"the keyring that holds the audit's key cannot be used: {failure}"
    return StoreLocked(problem, hint="unlock the keyring (log in to the desktop session it belongs to), then try again")
