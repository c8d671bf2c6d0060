"""What the demo claims, and whether it is so. Pure: everything was observed before.

A claim is judged on what several sides saw, where it can be: the run, the API, the host and the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moat.api.runs import ExchangeRecord


@dataclass(frozen=True, slots=True)
class Claim:
    """One line of the story. failure: what was seen instead; "" when it is so."""

    text: str
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that was seen. report: what the run printed (`agent.py`). canaries: how many addresses were tried.

    seen: the API's requests, each with whether it carried the real key. without_key: what the API answered to us when
    we asked without. visitors: who came to the canaries. leaks: files of moat's that hold the key in the clear.
    """

    exit_code: int
    said: str
    report: dict[str, Any]
    seen: Sequence[tuple[str, bool]]
    without_key: int
    canaries: int
    visitors: int
    leaks: Sequence[str]
    exchanges: Sequence[ExchangeRecord]
    api: str
    refused: str


def judge(seen: Observed) -> list[Claim]:
    """Return the story's claims in order. A run that failed leaves only that to say."""
    if seen.exit_code != 0 or not seen.report:
        return [Claim("a sealed run starts", f"it ended with {seen.exit_code}: {seen.said.strip() or 'no output'}")]
    claims = (_sealed, _spent, _nothing_inside, _no_way_around, _stubborn, _refused, _traced)
    return [claim(seen) for claim in claims]


def _sealed(seen: Observed) -> Claim:
    return Claim(
        "a sealed run starts: no network but its own loopback, proved before the command began",
        "" if "sealed ✓" in seen.said else f"moat said: {seen.said.strip()}",
    )


def _spent(seen: Observed) -> Claim:
    text = f"the run asked {seen.api} with a placeholder; the API saw the real key and answered 200"
    failures = []
    if seen.without_key != 401:
        failures.append(f"without a key the API answered {seen.without_key}")
    if seen.report["status"] != 200:
        failures.append(f"the run got {seen.report['status']}: {seen.report['body']}")
    if not any(is_real for _, is_real in seen.seen):
        failures.append("the API never saw the key")
    if "moat_demo_key" in seen.report["placeholder"] or not seen.report["placeholder"]:
        failures.append("there was no placeholder inside")
    return Claim(text, "; ".join(failures))


def _nothing_inside(seen: Observed) -> Claim:
    search = seen.report["search"]
    text = f"the key is not inside: {search['variables']} variables and {search['files']} files searched, /proc too"
    found = [*search["found"], *(f"{path} on the host, in the clear" for path in seen.leaks)]
    if not search["files"]:
        found.append("nothing could be searched")
    return Claim(text, ", ".join(found))


def _no_way_around(seen: Observed) -> Claim:
    text = f"a direct connection fails: {seen.canaries} doors of this machine tried, none reached"
    reached = list(seen.report["reached"])
    if seen.visitors:
        reached.append(f"{seen.visitors} connections came through")
    if not seen.canaries:
        reached.append("nothing was tried")
    return Claim(text, ", ".join(reached))


def _stubborn(seen: Observed) -> Claim:
    answer = seen.report["stubborn"]
    ways = {each.via for each in seen.exchanges if each.host == seen.api and each.outcome == "forwarded"}
    failure = "" if answer == 200 else f"it got {answer}"
    if not failure and "transparent" not in ways:
        failure = "the trace does not know of it"
    return Claim("a client that ignores proxy settings works just the same", failure)


def _refused(seen: Observed) -> Claim:
    status, text = seen.report["refused"]
    denied = [each for each in seen.exchanges if each.host == seen.refused and each.outcome == "denied"]
    failure = "" if status == 403 or "403" in text else f"the run got {status} {text}"
    if not failure and not denied:
        failure = "the trace does not know of it"
    return Claim(f"{seen.refused}, which nobody allowed, is refused with 403", failure)


def _traced(seen: Observed) -> Claim:
    forwarded = sum(1 for each in seen.exchanges if each.host == seen.api and each.outcome == "forwarded")
    came = len(seen.seen)
    failure = "" if forwarded == came else f"the API saw {came} requests, the trace {forwarded}"
    return Claim("every request is in the trace", failure)
