from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.runs import ExchangeRecord, NetworkPolicy, RunInfo
from moat.api.services import Service
from moat.cli.run_words import commits_left, commits_line, end_line, own_secrets, refused_grants, start_line
from moat.proxy.record import line_of
from moat.runs.outcomes import Commits
from moat.trace.network import NetworkLog

from core.cli.facts import a_prepared
from core.runs.plans import a_spec

INFO = RunInfo("run_0123456789ab", "calm-otter", "fake", "strict", (), "/srv/work", ("true",), "2026-01-01", requests=3)
DENIED = ExchangeRecord(
    run_id="run_0123456789ab", at="2026-01-01T00:00:00", via="connect", method="CONNECT", scheme="https",
    host="example.com", port=443, path="", status=403, outcome="denied", allow_line="--allow-host example.com",
)  # fmt: skip


def test_the_start_line_says_what_the_run_may_do_and_that_it_is_sealed() -> None:
    spec = a_spec(grants=("github", "aws"), policy=NetworkPolicy("strict"))

    line = start_line(a_prepared(spec), spec, is_sealed=True)

    assert line == "moat: calm-otter · fake · strict · grants: github, aws · sealed ✓"


def test_a_run_that_is_not_sealed_is_not_called_so() -> None:
    line = start_line(a_prepared(a_spec(), sealed=False), a_spec(), is_sealed=False)

    assert line == "moat: calm-otter · fake · permissive · no grants · NOT sealed"


def test_the_end_line_counts_requests(tmp_path: Path) -> None:
    assert end_line(INFO, tmp_path / "absent") == "moat: calm-otter · 3 requests"
    assert end_line(replace(INFO, requests=1), tmp_path / "absent") == "moat: calm-otter · 1 request"


def test_the_end_line_names_each_line_to_add_once(tmp_path: Path) -> None:
    network = _log(tmp_path, DENIED, DENIED, replace(DENIED, allow_line="--allow-host example.org:8443"))

    line = end_line(replace(INFO, denied=3), network)

    assert "3 denied" in line
    assert "to allow: --allow-host example.com --allow-host example.org:8443 ·" in line
    assert "moat trace calm-otter" in line
    assert "\n" not in line


def test_the_end_line_says_where_a_rule_that_allows_goes(tmp_path: Path) -> None:
    network = _log(tmp_path, replace(DENIED, allow_line="--rule 'allow example.com'"))

    assert "--rule 'allow example.com' (a --rule before the one that denies) ·" in end_line(
        replace(INFO, denied=1), network
    )


def test_many_denials_still_make_one_short_line(tmp_path: Path) -> None:
    network = _log(tmp_path, *(replace(DENIED, allow_line=f"--allow-host h{number}") for number in range(20)))

    assert "and 16 more" in end_line(replace(INFO, denied=20), network)


def test_a_denial_that_nothing_would_allow_has_no_line_to_add(tmp_path: Path) -> None:
    network = _log(tmp_path, replace(DENIED, allow_line=""))

    assert "to allow" not in end_line(replace(INFO, denied=1), network)


def test_a_variable_that_looks_like_a_credential_is_warned_about_by_name() -> None:
    warnings = own_secrets(
        a_spec(env={"GITHUB_TOKEN": "s3cr3t", "api_key": "s3cr3t", "PATH": "/bin", "EMPTY_TOKEN": ""})
    )

    assert [warning.split()[1] for warning in warnings] == ["GITHUB_TOKEN", "api_key"]
    assert "s3cr3t" not in "".join(warnings)


@pytest.mark.parametrize(
    ("statuses", "exit_code", "is_told"),
    [([200, 401], 1, True), ([401, 400], 1, True), ([401, 200], 1, False), ([200], 1, False), ([401], 0, False)],
    ids=["refused at last", "its renewal too", "renewed", "accepted", "of no consequence"],
)
def test_a_credential_that_is_not_accepted_any_more_is_named(
    tmp_path: Path, statuses: list[int], exit_code: int, is_told: bool
) -> None:
    network = _log(
        tmp_path, *(replace(DENIED, status=status, outcome="forwarded", grants=("pal",)) for status in statuses)
    )
    info = replace(INFO, grants=("pal",), exit_code=exit_code, profile="team")

    lines = refused_grants(info, network)

    wanted = "example.com did not accept the credential pal any more (401); renew it: moat grant --profile team pal"
    assert lines == ([wanted] if is_told else [])


def _log(folder: Path, *records: ExchangeRecord) -> Path:
    folder.chmod(0o700)
    log, file = NetworkLog(), folder / "network.jsonl"
    for record in records:
        log.append(file, f"{line_of(record)}\n".encode())
    log.flush()
    return file


def test_the_start_line_says_where_ports_are_reached() -> None:
    spec = replace(a_spec(), ports={"web": 3000, "api": 4000})

    reached = ("http://web.calm-otter.localhost:8080/ (127.0.0.1:13000)", "http://api.calm-otter.localhost:8080/")
    line = start_line(a_prepared(spec), spec, is_sealed=True, reached=reached)

    assert line.endswith(f"· {reached[0]} · {reached[1]}")
    assert "localhost" not in start_line(a_prepared(spec), spec, is_sealed=True)


def test_what_a_run_committed_is_told_with_what_shows_it() -> None:
    before, after = "a" * 40, "b" * 40

    made = commits_line(Commits("topic", before, after, 2), "/srv/topic")
    assert made == "moat: topic · 2 new commits · /srv/topic · git log aaaaaaaaaa..topic"
    assert commits_line(Commits("topic", before, before), "/srv/topic") == "moat: topic · no new commits · /srv/topic"


def test_commits_that_are_not_on_the_branch_are_told_with_where_they_are() -> None:
    refs = tuple(f"refs/moat/run_1/{number}" for number in range(6))

    assert commits_left(Commits("topic", "", "")) == []
    moved, kept = commits_left(Commits("topic", "", "", is_moved=False, others=refs))
    assert moved == "topic was moved on this machine meanwhile, and stays where it is"
    assert kept.endswith("moat/run_1/0, moat/run_1/1, moat/run_1/2, moat/run_1/3 and 2 more; see: git log")


def test_the_start_line_names_services() -> None:
    spec = replace(a_spec(), services=(Service("db", "x", 1), Service("cache", "x", 2)))

    assert "· services: db, cache ·" in start_line(a_prepared(a_spec()), spec, is_sealed=True)
