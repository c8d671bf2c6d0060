"""Runs as the user sees them afterwards: `moat list`, `moat trace`, references; and grants that are not there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.installation import assert_no_secret
from support.places import ROOT_PLACES, Place

pytestmark = ROOT_PLACES

API = "https://api.github.com"


def test_the_trace_has_one_object_for_each_exchange(place: Place) -> None:
    paths = [place.fresh_path("trace") for _ in range(3)]
    place.ok("curl", "-sS", *(API + path for path in paths), flags=("--name", "three"))

    traced = _trace(place, "three")

    assert [each["path"] for each in traced] == paths
    assert {(each["method"], each["status"], each["outcome"]) for each in traced} == {("GET", 200, "forwarded")}
    assert {tuple(each["grants"]) for each in traced} == {("github",)}


def test_the_trace_has_neither_query_values_nor_secrets(place: Place) -> None:
    path = place.fresh_path("query")
    place.ok("curl", "-sS", f"{API}{path}?key=va1ue&other=va1ue", flags=("--name", "query"))

    said = place.installation.ok("trace", "query", "--network", "--json")

    assert place.services.asked(path)[0].path.endswith("?key=va1ue&other=va1ue")
    assert path in said
    assert "va1ue" not in said
    assert "s3cr3t" not in said
    assert_no_secret(place.installation.home)
    for file in (place.installation.home / ".moat" / "runs").rglob("*.jsonl"):
        assert b"va1ue" not in file.read_bytes()


def test_the_trace_tells_which_way_an_exchange_came(place: Place) -> None:
    place.ok("sh", "-c", f"curl -sS {API}/a && curl -sS --noproxy '*' {API}/b", flags=("--name", "ways"))

    assert [each["via"] for each in _trace(place, "ways")] == ["connect", "transparent"]


def test_the_trace_counts_what_was_sent_and_answered(place: Place) -> None:
    place.ok("curl", "-sS", "-d", "12345", f"{API}/upload", flags=("--name", "counted"))

    traced = _trace(place, "counted")[0]

    assert traced["request_bytes"] == 5
    assert traced["response_bytes"] > 50


def test_a_run_is_found_by_id_by_its_beginning_and_by_name(place: Place) -> None:
    place.ok("curl", "-sS", f"{API}/found", flags=("--name", "wanted"))
    run_id = _list(place)[0]["run_id"]

    for reference in ("wanted", run_id, run_id[:-1]):
        assert [each["path"] for each in _trace(place, reference)] == ["/found"]


def test_a_reference_that_means_nothing_says_how_to_find_one(place: Place) -> None:
    done = place.installation.run("trace", "nothing-like-it", "--network")

    assert done.returncode == 1
    assert b"nothing-like-it" in done.stderr
    assert b"moat list" in done.stderr


def test_the_list_shows_a_finished_run_with_its_exit_code(place: Place) -> None:
    place.run("sh", "-c", f"curl -sS {API}/listed; exit 9", flags=("--name", "listed"))

    newest = _list(place)[0]

    assert (newest["name"], newest["state"], newest["exit_code"]) == ("listed", "stopped", 9)
    assert (newest["runtime"], newest["grants"], newest["requests"]) == (place.runtime, ["github"], 1)
    assert "stopped (9)" in place.installation.ok("list")


def test_the_list_shows_a_live_run_as_running(place: Place) -> None:
    run = place.start("cat", flags=("--name", "alive"), stdin=-1)
    assert run.stdin is not None
    assert run.stdout is not None
    run.stdin.write(b"x")
    run.stdin.flush()
    run.stdout.read(1)

    state = _list(place)[0]["state"]

    run.communicate(timeout=30)
    assert state == "running"


def test_a_missing_grant_refuses_before_anything_exists_and_names_the_fix(place: Place) -> None:
    before = _list(place)
    place.installation.ok("grant", "revoke", "github")
    try:
        done = place.run("true")
    finally:
        place.installation.grant("github", place.secret)

    assert done.returncode == 1
    assert b"moat grant github" in done.stderr
    assert b"sealed" not in done.stderr
    assert _list(place) == before


def test_a_grant_of_no_provider_lists_what_is_installed(place: Place) -> None:
    done = place.run("true", flags=("--grant", "gitlab"))

    assert done.returncode != 0
    assert b"gitlab" in done.stderr


def test_grants_are_listed_and_shown_without_their_secret(place: Place) -> None:
    listed, shown = place.installation.ok("grant", "list"), place.installation.ok("grant", "show", "github")

    assert "github" in listed
    assert "standard input" in shown
    assert "s3cr3t" not in listed + shown


@pytest.mark.parametrize("flag", ["--dry-run"])
def test_a_rehearsal_shows_the_run_and_makes_none(place: Place, flag: str) -> None:
    before = _list(place)

    said = place.installation.ok(*place.arguments("curl", API, flags=(flag,)))

    assert f"curl {API}" in said
    assert "GH_TOKEN" in said
    assert "s3cr3t" not in said
    assert _list(place) == before


def _trace(place: Place, reference: str) -> list[dict[str, Any]]:
    traced: list[dict[str, Any]] = json.loads(place.installation.ok("trace", reference, "--network", "--json"))
    return traced


def _list(place: Place) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(place.installation.ok("list", "--json"))
    return runs
