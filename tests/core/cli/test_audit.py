from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from architecture.tree import ROOT
from moat.audit.heads import public_key_of
from moat.audit.log import AuditLog
from moat.audit.reading import AuditReader
from moat.cli import audit as module
from moat.cli.main import run
from moat.daemon.audit_key import AuditKeys, Secret
from moat.paths import Home

from core.audit.making import HAPPENED, LIVE, RUN, a_note, seal

VERIFIER = ROOT / "docs" / "verify_audit.py"
FILE = {"MOAT_KEYRING_BACKEND": "file"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    home = Home(tmp_path / "home")
    keys = AuditKeys(home, FILE)
    secret = keys.obtain()
    with closing(AuditLog(home.audit)) as log:
        log.append(HAPPENED)
        keys.remember(replace(secret, anchor=seal(log, 1, secret.seed)))
    return home


def key_of(home: Home) -> str:
    secret = AuditKeys(home, FILE).look()
    assert isinstance(secret, Secret)
    return public_key_of(secret.seed)


def change(home: Home) -> None:
    with closing(sqlite3.connect(home.audit)) as db:
        db.execute("UPDATE entries SET at = 'then' WHERE chain = ? AND seq = 2", (RUN,))
        db.commit()


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run(["audit", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_without_a_run_it_is_about_the_installation_and_with_one_about_that(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys)
    assert (code, out.splitlines()[0].split()) == (0, ["NO", "AT", "WHAT", "DETAILS"])
    assert "grant github" in out
    assert "moat audit verify" in err
    for name in (RUN, RUN[:-1] + "a", "calm-otter"):
        code, out, _ = said(capsys, name)
        assert code == 0
        assert "github at https://api.github.com (connect, tunnel 1)" in out
    code, out, _ = said(capsys, "keen-heron", "--json")
    assert [each["kind"] for each in json.loads(out)] == ["started", "used", "used-again"]
    assert json.loads(out)[2]["facts"] == {"uses": [{"count": 7, "grant": "github"}]}


def test_what_is_added_is_shown_as_it_comes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    with AuditReader(home.audit) as reader:
        coming = module.coming(home, LIVE, list(reader.entries(LIVE)))
    assert [next(coming).seq for _ in range(3)] == [1, 2, 3]
    with closing(AuditLog(home.audit)) as log:
        log.append([a_note(LIVE, "used")])
    assert next(coming).seq == 4


def test_a_run_that_has_ended_is_followed_to_its_end_only(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "-f", RUN)

    assert code == 0
    assert out.splitlines()[-1].split()[3] == "ended"


def test_a_file_that_is_not_there_is_not_taken_for_a_run(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "verify", "otter.json")

    assert code == 2
    assert "there is no file otter.json" in err


def test_a_key_that_is_gone_is_told_to_programs_too(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    (home.root / "audit.key").unlink()

    code, out, _ = said(capsys, "verify", "--json")

    assert (code, json.loads(out)["ok"]) == (1, False)
    assert "key is gone" in json.loads(out)["first_bad"]["problem"]
    assert said(capsys, "verify")[0] == 1


def test_of_what_cannot_be_read_no_key_is_compared(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text("{}")

    code, out, err = said(capsys, "verify", str(tmp_path / "x.json"))

    assert (code, err) == (1, "")
    assert "no bundle" in out


def test_a_run_that_is_not_there_or_is_several_is_an_error(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "nobody")[0] == 1
    code, _, err = said(capsys, "run_")
    assert code == 1
    assert RUN in err
    assert LIVE in err


def test_a_whole_log_is_told_to_be_and_by_whose_key(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "verify")
    assert (code, out) == (0, f"whole: 13 entries in 3 chains, signed by the key {key_of(home)}\n")
    assert "lies in a file beside the log" in err
    assert said(capsys, "key")[1].strip() == key_of(home)
    code, out, _ = said(capsys, "verify", "--json")
    report = json.loads(out)
    assert (code, report["ok"], report["pinned"], report["closed"], report["first_bad"]) == (0, True, True, True, None)


def test_a_change_is_exit_code_1_and_names_the_entry_for_programs_too(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    change(home)
    code, out, _ = said(capsys, "verify")
    assert code == 1
    assert out.startswith(f"not whole: {RUN}, entry 2: it was changed")
    code, out, _ = said(capsys, "verify", "--json")
    assert (code, json.loads(out)["ok"]) == (1, False)
    assert json.loads(out)["first_bad"] | {"problem": ""} == {"chain": RUN, "seq": 2, "problem": ""}
    assert said(capsys, "verify", RUN)[0] == 1
    assert said(capsys, "verify", LIVE)[0] == 0


def test_a_log_that_is_gone_is_not_whole(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    for path in home.root.glob("audit.db*"):
        path.unlink()

    code, out, _ = said(capsys, "verify")

    assert (code, out.startswith("not whole: installation")) == (1, True)


def test_another_key_is_not_the_one(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "verify", "--key", "ab" * 32)[0] == 1
    assert said(capsys, "verify", "--key", key_of(home).upper())[0] == 0
    assert said(capsys, "verify", "--key", "short")[0] == 2


def verified_alone(bundle: Path, key: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(VERIFIER), str(bundle), key], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_bundle_is_verified_elsewhere_by_moat_and_by_the_script_of_the_documentation(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.json"
    code, _, err = said(capsys, "export", "calm-otter", "-o", str(bundle))
    key = key_of(home)
    assert (code, key in err) == (0, True)
    assert said(capsys, "export", RUN, "-o", "-")[1] == bundle.read_text()
    assert said(capsys, "verify", str(bundle))[0] == 0
    assert verified_alone(bundle, key) == (0, f"whole: 4 entries of {RUN}\n")
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "elsewhere"))
    code, _, err = said(capsys, "verify", str(bundle))
    assert (code, "nobody vouches for the key" in err) == (0, True)
    code, _, err = said(capsys, "verify", str(bundle), "--key", key)
    assert (code, err) == (0, "")
    assert said(capsys, "verify", str(bundle), "--key", "ab" * 32)[0] == 1
    assert verified_alone(bundle, "ab" * 32)[0] == 1
    assert not (tmp_path / "elsewhere").exists()


MUTATIONS: dict[str, tuple[Callable[[list[dict[str, Any]]], object], int]] = {
    "edited": (lambda entries: entries[1]["facts"].update(grant="gitlab"), 2),
    "deleted": (lambda entries: entries.pop(1), 2),
    "reordered": (lambda entries: entries.insert(1, entries.pop(2)), 2),
    "inserted": (lambda entries: entries.insert(1, dict(entries[1])), 3),
    "cut": (lambda entries: entries.pop(), 4),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_changed_bundle_is_found_by_both_with_the_same_entry(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    bundle, (mutate, seq) = tmp_path / "bundle.json", MUTATIONS[name]
    said(capsys, "export", RUN, "-o", str(bundle))
    whole = json.loads(bundle.read_text())
    mutate(whole["entries"])
    bundle.write_text(json.dumps(whole))

    code, out, _ = said(capsys, "verify", str(bundle), "--json")
    alone, told = verified_alone(bundle, key_of(home))

    assert (code, json.loads(out)["first_bad"]["seq"]) == (1, seq)
    assert (alone, f"not whole: {RUN}, entry {seq}:" in told) == (1, True)


def test_the_script_needs_nothing_and_fits_a_screen_or_two() -> None:
    text = VERIFIER.read_text()

    assert len(text.splitlines()) <= 60
    assert "moat." not in text.replace("moat audit", "")


def test_a_copy_of_the_log_itself_is_verified_as_a_file(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(home.audit, tmp_path / "copy.db")
    assert said(capsys, "verify", str(tmp_path / "copy.db"))[0] == 0
    assert said(capsys, "verify", "/no/such/file")[0] == 2
    (tmp_path / "copy.db").write_bytes(home.audit.read_bytes()[:5000])
    code, out, _ = said(capsys, "verify", str(tmp_path / "copy.db"), "--json")
    assert (code, json.loads(out)["ok"]) == (1, False)


def test_half_a_bundle_and_none_are_not_whole(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle.json"
    said(capsys, "export", RUN, "-o", str(bundle))
    for data in (bundle.read_bytes()[:-100], b"", b"{}"):
        bundle.write_bytes(data)
        code, out, _ = said(capsys, "verify", str(bundle), "--json")
        assert (code, json.loads(out)["first_bad"]["problem"]) == (
            1, "the file is no bundle of moat audit export, or is broken")  # fmt: skip
        alone, told = verified_alone(bundle, key_of(home))
        assert (alone, told) == (1, "not whole: it is no bundle, or is broken\n")


def test_what_nobody_signed_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    code, out, _ = said(capsys, "verify", "--json")
    assert (code, json.loads(out)["first_bad"]["problem"]) == (1, "nothing was recorded yet")
    with closing(AuditLog(tmp_path / "home" / "audit.db")) as log:
        log.append(HAPPENED)
    code, _, err = said(capsys, "export", RUN, "-o", str(tmp_path / "x"))
    assert (code, "nobody has signed" in err, (tmp_path / "x").exists()) == (1, True, False)
    assert said(capsys, "key")[0] == 1
