"""Why a program of an image could not be started, in words. Pure: what the engine says and knows is given."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

from moat.api.errors import SandboxFailed

SHELL = "/bin/sh"
ABSENT, UNUSABLE = 127, 126  # as a shell says it (POSIX, 2.8.2)
_KINDS = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}  # uname's words → images'
_OF_ANOTHER_KIND = os.strerror(errno.ENOEXEC)


def code_of(why: str) -> int:
    """Return the exit code for a program that could not be started. why: as the C library says it."""
    return ABSENT if why == os.strerror(errno.ENOENT) else UNUSABLE


def in_words(why: str, image: str, facts: Mapping[str, Any], machine: str) -> str:
    """Return why with what the image has to do with it. facts: the engine's of the image. machine: as uname has it."""
    if why != _OF_ANOTHER_KIND:
        return f"{why} (in the image {image})"
    made_for, ours = str(facts.get("Architecture", "")), _KINDS.get(machine, machine)
    if made_for in ("", ours):
        return f"{why} (in the image {image}): it is no program that this machine can run"
    return f"{why}: the image {image} is made for {made_for}, and this machine is {ours}"


def without_a_shell(failure: SandboxFailed, image: str) -> SandboxFailed:
    """Return failure, or what says it better where an image has no shell, or one for another kind of machine."""
    said = failure.problem.lower()
    if SHELL not in said:
        return failure
    if "no such file" in said or "not found" in said:
        problem = f"the image {image} has no {SHELL}, which dependencies and hooks.post_build are run by"
        return SandboxFailed(problem, hint="choose a base_image that has one, or take those out of moat.yaml")
    if _OF_ANOTHER_KIND.lower() in said:
        problem = f"the {SHELL} of the image {image} is for another kind of machine than this one"
        return SandboxFailed(problem, hint="choose a base_image that is made for this machine")
    return failure
