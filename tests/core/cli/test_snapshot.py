from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.installation import Installation, installation


@pytest.fixture
def moat() -> Iterator[Installation]:
    with installation() as made:
        made.file("work/a", "first\n")
        yield made


def test_a_snapshot_is_taken_listed_compared_and_restored(moat: Installation) -> None:
    work = moat.home / "work"
    short = moat.ok("snapshot", "create", "-m", "by me", cwd=work).strip()
    (work / "a").write_text("second\n")

    (listed,) = json.loads(moat.ok("snapshot", "list", "--json", cwd=work))
    assert (listed["id"][:10], listed["message"]) == (short, "by me")
    assert short in moat.ok("snapshot", "list", "work")
    assert "-first\n+second\n" in moat.ok("snapshot", "diff", short, cwd=work)
    assert "1 file changed" in moat.ok("snapshot", "diff", "--stat", short, "work")

    refused = moat.run("snapshot", "restore", short, cwd=work)
    assert refused.returncode == 2
    assert b"nobody to ask" in refused.stderr
    assert (work / "a").read_text() == "second\n"
    moat.ok("snapshot", "restore", short, "--yes", cwd=work)
    assert (work / "a").read_text() == "first\n"
    assert len(json.loads(moat.ok("snapshot", "list", "--json", "work"))) == 2

    assert moat.ok("snapshot", "remove", short, "--workspace", "work").strip() == short
    assert b"no snapshot" in moat.run("snapshot", "diff", short, "work").stderr


def test_a_workspace_without_snapshots_says_how_to_take_one(moat: Installation) -> None:
    assert "moat snapshot create" in moat.ok("snapshot", "list", "work")


def test_a_run_can_be_undone(moat: Installation) -> None:
    script = "echo broken > a; touch b"
    done = moat.run("run", "--snapshot", "work", "--runtime", "process", "--name", "wrecks", "--", "sh", "-c", script)
    assert done.returncode == 0
    (taken,) = json.loads(moat.ok("snapshot", "list", "--json", "work"))
    assert taken["message"] == "before wrecks"
    assert f"moat snapshot restore {taken['id'][:10]}".encode() in done.stderr

    moat.ok("snapshot", "restore", taken["id"][:10], "work", "--yes")

    assert sorted(each.name for each in (moat.home / "work").iterdir()) == ["a"]
    assert (moat.home / "work" / "a").read_text() == "first\n"
