from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moat.api.services import Sidecar
from moat.redaction import marks_of
from moat.runs.plan import RunPlan, plan
from moat.runs.service_logs import ServiceLogs, kept_services

from core.runs.plans import a_spec, some_facts

PASSWORD, GIVEN = "generated-s3cr3t", "given-s3cr3t"
DB = Sidecar("db", "postgres:17", 5432, {"POSTGRES_PASSWORD": GIVEN, "POSTGRES_DB": "shop"}, secrets=(PASSWORD,))


def a_plan() -> RunPlan:
    made = plan(a_spec(), some_facts())
    return replace(made, sandbox=replace(made.sandbox, services=(DB,)))


def kept(folder: Path, service: str) -> str:
    return (folder / "services" / service / "console.jsonl").read_text()


def test_what_services_print_is_kept_apart_and_without_passwords(tmp_path: Path) -> None:
    with ServiceLogs(tmp_path, a_plan()) as logs:
        logs.write("db", "stdout", f"shop has {PASSWORD[:5]}".encode())
        logs.write("db", "stdout", f"{PASSWORD[5:]}, {GIVEN}\n".encode())
        logs.write("cache", "stderr", b"no\n")

    assert kept_services(tmp_path) == ["cache", "db"]
    assert "shop has " in kept(tmp_path, "db")
    assert PASSWORD not in kept(tmp_path, "db")
    assert GIVEN not in kept(tmp_path, "db")
    assert '"stream":"stderr","text":"no\\n"' in kept(tmp_path, "cache")
    assert (tmp_path / "services").stat().st_mode & 0o077 == 0


def test_what_services_print_loses_stored_credentials_too(tmp_path: Path) -> None:
    with ServiceLogs(tmp_path, replace(a_plan(), known=marks_of(["stored-s3cr3t"]))) as logs:
        logs.write("db", "stdout", b"it is stored-s3cr3t\n")

    assert "it is [redacted]" in kept(tmp_path, "db")


def test_a_disk_that_takes_nothing_is_no_concern_of_the_runs(tmp_path: Path) -> None:
    (tmp_path / "services").write_text("no folder")

    with ServiceLogs(tmp_path, a_plan()) as logs:
        logs.write("db", "stdout", b"lost\n")


def test_nothing_is_kept_where_nothing_was_printed(tmp_path: Path) -> None:
    assert kept_services(tmp_path) == []
