from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from moat.api import GrantFailed
from moat_provider_aws.policy import checked_policy, digest, read_policy, summary

STATEMENT = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}
POLICY = {"Version": "2012-10-17", "Statement": [STATEMENT]}
COMPACT = json.dumps(POLICY, separators=(",", ":"))


def files(**contents: bytes) -> Callable[[Path], bytes | None]:
    """Return what reads /NAME.json, and nothing else."""
    return {Path(f"/{name}.json"): content for name, content in contents.items()}.get


def of(*statements: object) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def test_json_and_a_file_are_the_same_policy() -> None:
    spread = json.dumps(POLICY, indent=4)

    assert read_policy(f"\n{spread}", files()) == COMPACT
    assert read_policy("/p.json", files(p=spread.encode())) == COMPACT
    assert read_policy("/p.json", files(p=b"\xef\xbb\xbf" + spread.encode())) == COMPACT


def test_a_file_of_the_users_home_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")

    assert read_policy("~/p.json", files(p=COMPACT.encode())) == COMPACT


def test_what_sts_takes_no_character_of_is_written_so_that_it_does() -> None:
    policy = checked_policy(of({**STATEMENT, "Resource": "arn:aws:s3:::b/日本"}))

    assert policy.isascii()
    assert json.loads(policy)["Statement"][0]["Resource"] == "arn:aws:s3:::b/日本"


def test_one_statement_needs_no_list() -> None:
    assert checked_policy(json.dumps({"Statement": STATEMENT}))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is no JSON .line 1"),
        ('{"Statement": NaN}', "no Statement"),
        ("[" * 5000, "is no JSON"),
        ("{}", "no Statement with an Effect"),
        ("[]", "no Statement with an Effect"),
        (of(), "no Statement with an Effect"),
        (of("Allow"), "no Statement with an Effect"),
        (of({**STATEMENT, "Effect": "allow"}), "Effect of Allow or Deny"),
        (of({"Effect": "Deny", "Resource": "*"}), "lacks its Action or its Resource"),
        (of({"Effect": "Deny", "Action": "*"}), "lacks its Action or its Resource"),
        (of({**STATEMENT, "Principal": "*"}), "names no Principal"),
        ('{"Statement": [], "Statement": [1]}', "says something twice"),
        (of({**STATEMENT, "Sid": "x" * 2048}), "characters, and STS takes 2048"),
        (" " * 70_000, "has 70000 characters"),
    ],
)
def test_what_sts_would_refuse_is_refused_before_it_is_asked(text: str, problem: str) -> None:
    with pytest.raises(GrantFailed, match=problem) as caught:
        checked_policy(text)

    assert caught.value.problem.endswith("; nothing was saved")
    assert caught.value.hint


def test_the_limit_is_of_what_is_sent_and_not_of_what_was_typed() -> None:
    room = 2048 - len(checked_policy(of({**STATEMENT, "Sid": ""})))
    fits = of({**STATEMENT, "Sid": "x" * room})

    assert len(checked_policy(json.dumps(json.loads(fits), indent=40))) == 2048
    with pytest.raises(GrantFailed, match="2049 characters"):
        checked_policy(of({**STATEMENT, "Sid": "x" * (room + 1)}))


@pytest.mark.parametrize("typed", ["", "/nowhere", "s3:GetObject"])
def test_what_is_neither_json_nor_a_file_is_refused(typed: str) -> None:
    with pytest.raises(GrantFailed, match="neither JSON nor a file"):
        read_policy(typed, files())


def test_a_file_that_is_no_text_is_refused() -> None:
    with pytest.raises(GrantFailed, match="is not text"):
        read_policy("/p.json", files(p=b"\xff\xff"))


def test_a_summary_tells_policies_apart_and_repeats_nothing_of_them() -> None:
    other = checked_policy(of(STATEMENT, {**STATEMENT, "Effect": "Deny"}))

    assert summary(COMPACT) == f"sha256 {digest(COMPACT)}, 1 statement, {len(COMPACT)} characters"
    assert summary(other).startswith(f"sha256 {digest(other)}, 2 statements, ")
    assert digest(other) != digest(COMPACT)
    assert "GetObject" not in summary(other)
