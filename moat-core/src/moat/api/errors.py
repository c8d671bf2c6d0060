"""Every error a user may see, as one tree.

    MoatError                 problem, hint, exit_code; the CLI prints `error: …` and `hint: …`
    ├── UsageError            the command line or a setting is wrong                          exit 2
    ├── GrantFailed           a credential could not be obtained or was refused; nothing is saved
    │   └── GrantRevoked      its service will never accept it again
    ├── GrantMissing          a run asks for a grant that is not stored
    ├── SecretFailed          a secret of moat.yaml cannot be had from where it refers to
    ├── StoreError            the credential store
    │   ├── StoreLocked       the key cannot be read now (keyring locked, absent, failing)
    │   └── StoreCorrupt      a stored credential cannot be decrypted or parsed
    ├── PluginError           a plugin is broken, or two claim one name
    ├── PlanConflict          two contributors want different things in one run
    ├── RuntimeUnavailable    no runtime can start this run here
    ├── SandboxFailed         a sandbox could not be made, or did not prove that it is sealed
    ├── DaemonError           the daemon cannot be started, reached, or refused a request
    │   ├── AuditUnwritable   what is about to be done cannot be written down first
    │   ├── DaemonLeaving     it is finishing: its successor can be asked
    │   └── DaemonUnreached   nobody answers at its socket
    └── RunNotFound           a run reference matches no run, or more than one

A *problem* is lower case and names the thing; a *hint* is the next command to type. Neither ever holds a secret.
"""

from __future__ import annotations


class MoatError(Exception):
    """What went wrong, in the user's words, and what to type next."""

    exit_code: int = 1

    def __init__(self, problem: str, *, hint: str = "", exit_code: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(MoatError):
    """The command line or a setting is wrong; nothing was done."""

    exit_code = 2


class GrantFailed(MoatError):
    """A credential could not be obtained or was refused by its service; nothing was saved."""


class GrantRevoked(GrantFailed):
    """A service will never accept this credential again: it is renewed no more, and only granting anew helps."""


class GrantMissing(MoatError):
    """A run asks for a grant that is not stored; the hint is the `moat grant` line."""


class SecretFailed(MoatError):
    """A secret of moat.yaml cannot be had: its reference is none, or its source refused."""


class StoreError(MoatError):
    """The credential store cannot be used."""


class StoreLocked(StoreError):
    """The store's key cannot be read now; no second key is ever made."""


class StoreCorrupt(StoreError):
    """A stored credential cannot be decrypted or parsed; the file is left as it is."""


class PluginError(MoatError):
    """A plugin cannot be loaded, or two distributions claim one name; the problem names them."""


class PlanConflict(MoatError):
    """Two contributors want different values for one variable, file or mount; both are named."""


class RuntimeUnavailable(MoatError):
    """No runtime, or not the one asked for, can start a sandbox on this machine."""


class SandboxFailed(MoatError):
    """A sandbox could not be made or did not prove that it is sealed; the command was never started."""


class DaemonError(MoatError):
    """The daemon cannot be started or reached, or it refused a request."""


class AuditUnwritable(DaemonError):
    """What is about to be done cannot be written down first, and so is not done."""


class DaemonLeaving(DaemonError):
    """The daemon is finishing and did nothing about this request; its successor can be asked."""


class DaemonUnreached(DaemonError):
    """Nobody answers at the daemon's socket."""


class RunNotFound(MoatError):
    """A run reference (id, unique prefix of an id, or name) matches no run or several."""
