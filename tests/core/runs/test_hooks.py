from __future__ import annotations

import subprocess

import pytest
from moat.runs.hooks import after_hooks, label

HOOK = "echo \"one 'quoted' $A\"\ncat"


def ran(*hooks: str, command: tuple[str, ...] = ("sh", "-c", "cat; env"), env: dict[str, str] | None = None) -> str:
    done = subprocess.run(after_hooks(hooks, command), input="input\n", env=env or {}, capture_output=True, text=True,
                          check=False)  # fmt: skip
    return f"{done.stdout}{done.stderr}= {done.returncode}"


def test_without_hooks_the_command_is_what_it_was() -> None:
    assert after_hooks((), ("make", "test")) == ("make", "test")


def test_hooks_run_in_their_order_with_the_runs_variables_and_leave_its_input_to_the_command() -> None:
    said = ran(HOOK, "true", command=("sh", "-c", "cat; echo $#", "sh"), env={"A": "x"})

    assert said == "one 'quoted' x\ninput\n0\n= 0"


def test_the_commands_variables_are_as_they_were() -> None:
    said = ran("A=changed; export B=new", "true", env={"A": "x"})

    assert {line.partition("=")[0] for line in said.splitlines()} <= {"input", "A", "PWD", "_", "SHLVL", ""} | {"= 0"}
    assert "A=x\n" in said


@pytest.mark.parametrize(
    ("hook", "code", "told"),
    [
        ("exit 7", 7, "hooks.pre_run 2 of 3 ended with 7, so the command was not run: exit 7"),
        ("false\necho never", 1, "ended with 1, so the command was not run: false"),
        ("kill -9 $$", 137, "ended with 137"),
        ("no-such-program", 127, "ended with 127"),
    ],
)
def test_a_hook_that_fails_ends_the_run_with_its_code_and_is_named(hook: str, code: int, told: str) -> None:
    said = ran("echo first", hook, "echo third", command=("echo", "never"))

    assert said.startswith("first\n")
    assert told in said
    assert "never\n" not in said
    assert "third" not in said
    assert said.endswith(f"= {code}")


def test_the_command_takes_the_shells_place() -> None:
    assert ran("true", command=("sh", "-c", "kill -9 $$")).endswith("= -9")
    assert ran("true", command=("/no/such",)).endswith("= 127")


def test_a_label_is_one_short_line() -> None:
    assert label("\n  make db\nmore") == "make db"
    assert label("\x1b[2mx") == "?[2mx"
    assert len(label("x" * 200)) == 100
    assert label("\n") == ""
