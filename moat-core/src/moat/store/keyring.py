"""The operating system's keyring, bounded in time, its many failures told as one error.

Refuses backends that keep secrets in the clear. Knows nothing of files or of what the key is for.
`keyring` is imported on first use: it looks for back ends on every import.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")

SERVICE = "moat"
TIMEOUT_S = 30.0  # long enough to type a password into an unlock dialog, short enough that nobody waits for ever
_REFUSED_MODULES = ("keyrings.alt", "keyring.backends.null", "keyring.backends.fail")

log = logging.getLogger(__name__)


class KeyringFailed(Exception):
    """The keyring exists but did not answer: locked, dismissed, failing or hung. The text holds no secret."""


class NoKeyring(KeyringFailed):
    """There is no keyring here that a secret may be entrusted to."""


class SystemKeyring:
    """The user's keyring, or KeyringFailed."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s

    def get(self, account: str) -> str | None:
        """Return what is stored for account, or None."""
        return self._bounded(lambda: _usable_backend().get_password(SERVICE, account))

    def put(self, account: str, value: str) -> None:
        """Store value, and read it back to be sure."""

        def store() -> bool:
            backend = _usable_backend()
            backend.set_password(SERVICE, account, value)
            return backend.get_password(SERVICE, account) == value

        if not self._bounded(store):
            raise KeyringFailed("it did not keep what was stored")

    def remove(self, account: str) -> bool:
        """Remove what is stored for account, and return whether there was something."""

        def remove() -> bool:
            backend = _usable_backend()
            if backend.get_password(SERVICE, account) is None:
                return False
            backend.delete_password(SERVICE, account)
            return True

        return self._bounded(remove)

    def _bounded(self, call: Callable[[], T]) -> T:
        """Run call in a thread of its own: a keyring that hangs (a dialog nobody sees, a dead D-Bus) is left behind."""
        task = _Task(call)
        threading.Thread(target=task.run, name="keyring", daemon=True).start()
        return task.result(self._timeout_s)


class _Task(Generic[T]):
    """One call in another thread, and its outcome."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._done = threading.Event()
        self._values: list[T] = []
        self._failure: KeyringFailed | None = None

    def run(self) -> None:
        try:
            self._values.append(self._call())
        except Exception as failure:  # noqa: BLE001 # the top of a thread: back ends raise what their libraries do
            log.info("keyring failed", extra={"error": type(failure).__name__})
            self._failure = failure if isinstance(failure, KeyringFailed) else _translated(failure)
            _let_go(failure)
        self._done.set()

    def result(self, timeout_s: float) -> T:
        if not self._done.wait(timeout_s):
            raise KeyringFailed(f"it did not answer in {timeout_s:g} s")
        if self._failure is not None:
            raise self._failure
        return self._values[0]


def _let_go(caught: Exception) -> None:
    """Close the connections that the frames of a failure hold, and of those behind it: back ends leave them open.

    jeepney's connections are cycles (0.9: `bus_proxy`), so that without a frame they stay until garbage is collected.
    """
    trace = caught.__traceback__
    if trace is not None:
        caught.__traceback__ = trace.tb_next  # the frame that caught it still runs
    failure: BaseException | None = caught
    while failure is not None:
        for frame, _ in traceback.walk_tb(failure.__traceback__):
            for value in frame.f_locals.values():
                if type(value).__module__.startswith("jeepney.") and hasattr(value, "close"):
                    value.close()
        traceback.clear_frames(failure.__traceback__)
        failure = failure.__cause__ or failure.__context__


def _translated(failure: Exception) -> KeyringFailed:
    """Return our error for a back end's: its type's name and a keyring error's first line, both free of secrets."""
    from keyring.errors import KeyringError, NoKeyringError

    if isinstance(failure, NoKeyringError):
        return NoKeyring("there is none on this machine")
    lines = str(failure).splitlines() if isinstance(failure, KeyringError) else []
    return KeyringFailed(f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__)


def _usable_backend() -> KeyringBackend:
    import keyring

    chosen = keyring.get_keyring()
    for backend in getattr(chosen, "backends", None) or [chosen]:  # a chainer holds several, the preferred first
        if not _is_refused(backend):
            return backend  # type: ignore[no-any-return] # chainers are untyped
    raise NoKeyring(_why_none(chosen))


def _is_refused(backend: object) -> bool:
    kind = type(backend)
    return kind.__module__.startswith(_REFUSED_MODULES) or "plaintext" in kind.__name__.lower()


def _why_none(chosen: object) -> str:
    kind = type(chosen)
    if kind.__module__.startswith("keyring.backends"):
        return "there is none on this machine"
    return f"{kind.__name__} does not protect what it keeps"
