from __future__ import annotations

import pytest
from moat.api.errors import SandboxFailed
from moat.runtimes.unstartable import code_of, in_words, without_a_shell

ENOENT, EACCES, ENOEXEC = "No such file or directory", "Permission denied", "Exec format error"


@pytest.mark.parametrize(("why", "code"), [(ENOENT, 127), (EACCES, 126), (ENOEXEC, 126)])
def test_the_exit_code_is_a_shells(why: str, code: int) -> None:
    assert code_of(why) == code


@pytest.mark.parametrize(
    ("why", "facts", "told"),
    [
        (ENOENT, {"Architecture": "arm64"}, "No such file or directory (in the image tool:1)"),
        (
            ENOEXEC,
            {"Architecture": "arm64"},
            "Exec format error: the image tool:1 is made for arm64, and this machine is amd64",
        ),
        (
            ENOEXEC,
            {"Architecture": "amd64"},
            "Exec format error (in the image tool:1): it is no program that this machine can run",
        ),
    ],
    ids=["absent", "an image for another machine", "a file of another machine's"],
)
def test_the_image_is_named_with_what_is_wrong_with_it(why: str, facts: dict[str, str], told: str) -> None:
    assert in_words(why, "tool:1", facts, "x86_64") == told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown', "the image tool:1 has no /bin/sh"),
        ('exec: "/bin/sh": executable file not found', "the image tool:1 has no /bin/sh"),
        ("exec /bin/sh: exec format error", "the /bin/sh of the image tool:1 is for another kind of machine"),
        ("no space left on device", "no space left on device"),
        ("mount /bin/sh: too many levels", "mount /bin/sh: too many levels"),
    ],
)
def test_a_build_without_a_shell_says_so(said: str, told: str) -> None:
    assert without_a_shell(SandboxFailed(said, hint="none"), "tool:1").problem.startswith(told)
