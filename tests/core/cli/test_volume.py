from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from moat.paths import Home
from moat.runs.volumes import make_volumes
from support.installation import Installation, installation


@pytest.fixture
def moat() -> Iterator[Installation]:
    with installation() as made:
        made.file("work/x", "")
        made.file(".moat/x", "")
        (made.home / ".moat").chmod(0o700)
        make_volumes(Home(made.home / ".moat"), made.home / "work", ["cache", "data"])
        yield made


def test_volumes_are_listed_and_removed_after_a_yes(moat: Installation) -> None:
    work = moat.home / "work"
    listed = json.loads(moat.ok("volume", "list", "--json"))
    assert [(each["name"], each["workspace"]) for each in listed] == [("cache", str(work)), ("data", str(work))]
    assert "cache" in moat.ok("volume", "list")

    refused = moat.run("volume", "remove", "cache", cwd=work)
    assert refused.returncode == 2
    assert b"moat volume remove cache --yes" in refused.stderr
    assert b"has no volume cache" in moat.run("volume", "remove", "cache").stderr  # of this folder
    assert "cache, of" in moat.ok("volume", "remove", "cache", "--workspace", "work", "--dry-run")
    moat.ok("volume", "remove", "cache", "cache", "--workspace", "work", "--yes")

    assert [each["name"] for each in json.loads(moat.ok("volume", "list", "--json"))] == ["data"]
    work.rename(moat.home / "moved")
    assert f"{work} (gone)" in moat.ok("volume", "list")
    moat.ok("clean", "--yes")
    assert "no volumes yet" in moat.ok("volume", "list")


def test_a_volume_that_a_live_run_may_use_is_not_removed(moat: Installation) -> None:
    moat.ok("run", "-d", "work", "--runtime", "process", "--name", "alive", "--", "sleep", "600")

    refused = moat.run("volume", "remove", "cache", "--workspace", "work", "--yes")

    assert refused.returncode == 2
    assert b"alive may be using the volume cache" in refused.stderr
    assert b"moat stop alive" in refused.stderr
