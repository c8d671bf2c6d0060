"""Bounds a `credential_process` of the user's config, for which botocore waits for ever: it is ended, and that is told.

Whatever a session starts: of its own profile, and of the profile that this one takes a role with (`source_profile`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from functools import partial
from typing import Any

from moat_provider_aws.keys import NoSession

LIMIT_S = 30.0  # a vault may wait for somebody to touch a key; nobody waits for longer
TOO_LONG = "CredentialProcessTimeout"


def bound(session: Any) -> None:
    """Have each credential_process of a boto3 session end in time. NoSession is raised where it does not."""
    from botocore.credentials import ProcessProvider  # type: ignore[import-untyped] # botocore has no types

    inner = session._session

    def bounded(profile_name: str) -> Any:
        popen = partial(_Bounded, profile=profile_name, limit_s=LIMIT_S)
        return ProcessProvider(profile_name, lambda: inner.full_config, popen)

    resolver = inner.get_component("credential_provider")
    resolver.insert_before(ProcessProvider.METHOD, bounded(inner.profile or "default"))
    # It makes the providers of a source_profile, and botocore has no other place where they could be chosen.
    resolver.get_provider("assume-role")._profile_provider_builder._create_process_provider = bounded


class _Bounded:
    """As much of a Popen as botocore uses."""

    def __init__(self, argv: Sequence[str], *, profile: str, limit_s: float, **options: Any) -> None:
        self._profile, self._limit_s = profile, limit_s
        # A group of its own, to be ended whole; but not where it may want to ask at the user's terminal.
        self._is_group = not _has_terminal()
        self._process = subprocess.Popen(argv, start_new_session=self._is_group, **options)

    @property
    def returncode(self) -> int | None:
        """Its exit code."""
        return self._process.returncode

    def communicate(self) -> tuple[bytes, bytes]:
        """Return what it prints until it ends. Raises NoSession when it does not."""
        try:
            return self._process.communicate(timeout=self._limit_s)
        except subprocess.TimeoutExpired:
            self._end()
        typed = shlex.quote(self._profile)
        problem = f"the credential_process of the AWS profile {self._profile} did not end within {self._limit_s:g} s"
        hint = f"run it yourself: aws sts get-caller-identity --profile {typed}"
        raise NoSession(problem, hint, TOO_LONG, is_final=False)

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._is_group:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        for pipe in (self._process.stdout, self._process.stderr):  # a child of its own may still hold the other ends
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
