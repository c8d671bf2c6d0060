"""A stored credential that a command prints, or that is typed as its argument, stands in no file of moat's."""

from __future__ import annotations

import json

import pytest
from support.installation import Installation, installation

SECRET = "ghp_s3cr3tOfThisTestWhichNobodyKeeps0001"
OTHER = "ghp_AnotherOneThatIsNotStoredAndIsKept0002"


def files_with(made: Installation, text: str) -> set[str]:
    files = [path for path in (made.home / ".moat").rglob("*") if path.is_file() and not path.is_symlink()]
    return {path.name for path in files if text.encode() in path.read_bytes()}


@pytest.mark.bubblewrap
@pytest.mark.timeout(120)
def test_no_file_holds_a_credential_that_a_command_prints_or_is_given() -> None:
    with installation() as made:
        made.grant("github", SECRET)
        work = made.file("work/.env", f"GH_TOKEN={SECRET}\nX={OTHER}\n").parent
        script = 'cat .env; printf \'%s\\n\' "placeholder $GH_TOKEN" "typed $1"'
        command = ("--grant", "github", "--", "sh", "-c", script, "sh", SECRET)

        made.ok("run", "--runtime", "bubblewrap", "--name", "kept", "-d", *command, cwd=work)
        made.ok("wait", "kept")
        shown = made.ok("run", "--runtime", "bubblewrap", "--name", "piped", *command, cwd=work)
        listed = json.loads(made.ok("list", "--json", "-a"))

        assert f"GH_TOKEN={SECRET}\n" in shown
        assert f"typed {SECRET}\n" in shown
        placeholder = shown.partition("placeholder ")[2].partition("\n")[0]
        logs = made.ok("logs", "kept")
        assert logs == f"GH_TOKEN=[redacted]\nX={OTHER}\nplaceholder {placeholder}\ntyped [redacted]\n"
        assert {run["command"][-1] for run in listed} == {"[redacted]"}
        assert files_with(made, SECRET) == set()
        assert {"console.jsonl"} == files_with(made, OTHER)
        assert {"run.json", "plan.json"} <= files_with(made, "[redacted]")
