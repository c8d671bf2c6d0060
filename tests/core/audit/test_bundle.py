from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moat.api.errors import MoatError, UsageError
from moat.audit.bundle import Bundle, read_bundle, render, sealed_only, verify_bundle
from moat.audit.heads import public_key_of
from moat.audit.reading import AuditReader
from moat.audit.verify import Pin

from core.audit.making import KEY, OTHER_SEED, RUN, SEED, made


def exported(tmp_path: Path, seed: bytes = SEED) -> bytes:
    log = made(tmp_path / "audit.db")
    with AuditReader(log.path) as reader:
        head = reader.head(RUN)
        assert head is not None
        return render(Bundle(RUN, public_key_of(seed), head, tuple(reader.entries(RUN))))


def test_a_bundle_is_verified_by_itself(tmp_path: Path) -> None:
    data = exported(tmp_path)

    report = verify_bundle(read_bundle(data), Pin(KEY))

    assert report.faults == ()
    assert (report.entries, report.is_over, report.is_pinned) == (4, True, True)
    assert not verify_bundle(read_bundle(data), Pin()).is_pinned
    assert verify_bundle(read_bundle(data), Pin()).is_whole


def edited(whole: dict[str, Any]) -> None:
    whole["entries"][1]["facts"]["authority"] = "https://elsewhere.example"


def deleted(whole: dict[str, Any]) -> None:
    del whole["entries"][1]


def cut(whole: dict[str, Any]) -> None:
    del whole["entries"][2:]


def emptied(whole: dict[str, Any]) -> None:
    whole["entries"] = []


def reordered(whole: dict[str, Any]) -> None:
    whole["entries"][1], whole["entries"][2] = whole["entries"][2], whole["entries"][1]


def inserted(whole: dict[str, Any]) -> None:
    whole["entries"].insert(1, dict(whole["entries"][1]))


def put_at_the_end(whole: dict[str, Any]) -> None:
    from moat.audit.chain import Tip, linked

    last = whole["entries"][-1]
    more = linked(RUN, Tip(last["seq"], last["hash"]), last["at"], "used", {})
    whole["entries"].append({**vars_of(more), "facts": {}})


def vars_of(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in ("chain", "seq", "at", "kind", "facts", "prev", "hash")}


@pytest.mark.parametrize(
    ("change", "seq"),
    [(edited, 2), (deleted, 2), (cut, 3), (emptied, 1), (reordered, 2), (inserted, 3), (put_at_the_end, 5)],
)
def test_a_changed_bundle_is_found_and_the_first_bad_entry_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], seq: int
) -> None:
    whole = json.loads(exported(tmp_path))
    change(whole)

    report = verify_bundle(read_bundle(json.dumps(whole).encode()), Pin(KEY))

    assert report.faults[0].seq == seq
    assert report.faults[0].chain == RUN


def test_a_swapped_key_is_found_where_one_is_pinned(tmp_path: Path) -> None:
    bundle = read_bundle(exported(tmp_path, OTHER_SEED))

    assert verify_bundle(bundle, Pin(KEY)).is_whole  # what it says of its key does not count
    assert not verify_bundle(bundle, Pin(public_key_of(OTHER_SEED))).is_whole
    assert not verify_bundle(bundle, Pin()).is_whole


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format": "moat-audit"}', b'{"format": "x"}', b"[" * 99_999])
def test_what_is_no_bundle_is_an_error(data: bytes) -> None:
    with pytest.raises(MoatError, match="no bundle"):
        read_bundle(data)


def test_a_bundle_of_a_later_format_says_so(tmp_path: Path) -> None:
    whole = json.loads(exported(tmp_path))
    with pytest.raises(UsageError, match="format is 2"):
        read_bundle(json.dumps({**whole, "version": 2}).encode())


def test_only_what_a_head_vouches_for_is_exported(tmp_path: Path) -> None:
    log = made(tmp_path / "audit.db")

    assert [entry.seq for entry in sealed_only(log.entries(RUN), 2)] == [1, 2]
