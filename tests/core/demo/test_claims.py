from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from moat.api.runs import ExchangeRecord
from moat.demo.claims import Observed, judge

FORWARDED = ExchangeRecord(
    run_id="run_0123456789ab", at="2026-01-01", via="transparent", method="GET", scheme="https",
    host="api.acme.example", port=443, path="/", status=200, outcome="forwarded",
)  # fmt: skip
DENIED = replace(FORWARDED, host="elsewhere.example", outcome="denied", status=403, via="connect")
REPORT: dict[str, Any] = {
    "placeholder": "moat-placeholder", "status": 200, "body": "{}", "reached": [], "stubborn": 200,
    "search": {"variables": 3, "files": 5, "found": []}, "refused": [0, "Tunnel connection failed: 403 Forbidden"],
}  # fmt: skip
FINE = Observed(
    exit_code=0, said="moat: x · sealed ✓", report=REPORT, seen=[("/v1", True)], without_key=401, canaries=4,
    visitors=0, leaks=[], exchanges=[FORWARDED, DENIED], api="api.acme.example", refused="elsewhere.example",
)  # fmt: skip


def test_what_is_so_has_no_failure() -> None:
    claims = judge(FINE)

    assert len(claims) == 7
    assert [claim.failure for claim in claims] == [""] * 7


@pytest.mark.parametrize(
    ("seen", "number", "said"),
    [
        (replace(FINE, said="moat: x · NOT sealed"), 0, "NOT sealed"),
        (replace(FINE, without_key=200), 1, "without a key"),
        (replace(FINE, seen=[("/v1", False)]), 1, "never saw"),
        (replace(FINE, report=REPORT | {"status": 401}), 1, "401"),
        (replace(FINE, report=REPORT | {"placeholder": ""}), 1, "placeholder"),
        (replace(FINE, report=REPORT | {"placeholder": "moat_demo_key_0"}), 1, "placeholder"),
        (replace(FINE, report=REPORT | {"search": {"variables": 1, "files": 1, "found": ["X"]}}), 2, "X"),
        (replace(FINE, report=REPORT | {"search": {"variables": 1, "files": 0, "found": []}}), 2, "nothing"),
        (replace(FINE, leaks=["runs/x"]), 2, "runs/x"),
        (replace(FINE, report=REPORT | {"reached": ["10.0.0.1 port 1"]}), 3, "10.0.0.1"),
        (replace(FINE, visitors=1), 3, "came through"),
        (replace(FINE, canaries=0), 3, "nothing was tried"),
        (replace(FINE, report=REPORT | {"stubborn": "no route"}), 4, "no route"),
        (replace(FINE, exchanges=[replace(FORWARDED, via="connect"), DENIED]), 4, "trace"),
        (replace(FINE, report=REPORT | {"refused": [200, "hello"]}), 5, "200"),
        (replace(FINE, exchanges=[FORWARDED]), 5, "trace"),
        (replace(FINE, exchanges=[FORWARDED, FORWARDED, DENIED]), 6, "the API saw 1 requests, the trace 2"),
    ],
)
def test_each_claim_fails_alone_when_it_is_not_so(seen: Observed, number: int, said: str) -> None:
    claims = judge(seen)

    assert [index for index, claim in enumerate(claims) if claim.failure] == [number]
    assert said in claims[number].failure


@pytest.mark.parametrize("seen", [replace(FINE, exit_code=1, said="error: x"), replace(FINE, report={})])
def test_a_run_that_failed_is_the_only_thing_to_say(seen: Observed) -> None:
    (claim,) = judge(seen)

    assert claim.failure
