"""What `moat run` says about a run, before and after. Text only: nothing is looked up but a run's denials."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from moat.api.runs import ExchangeRecord, RunInfo, RunSpec
from moat.ids import TELLING_NAME
from moat.runs.merge import FILE, secret_of
from moat.runs.outcomes import Commits
from moat.runs.prepare import Prepared

BAD_REQUEST, UNAUTHORIZED = 400, 401
SHOWN_LINES = 4  # more than that nobody adds by hand


def start_line(prepared: Prepared, spec: RunSpec, *, is_sealed: bool, reached: Iterable[str] = ()) -> str:
    """Return the one line that is said when the run begins. reached: where its ports are."""
    parts = [prepared.facts.name, prepared.runtime.name, spec.policy.mode]
    parts.append(f"grants: {', '.join(spec.grants)}" if spec.grants else "no grants")
    parts += [FILE] if any(owner.startswith(FILE) for owner in spec.origins.values()) else []
    parts += [f"services: {', '.join(each.name for each in spec.services)}"] if spec.services else []
    parts.append("sealed ✓" if is_sealed else "NOT sealed")
    parts += reached
    return "moat: " + " · ".join(parts)


def end_line(info: RunInfo, network: Path) -> str:
    """Return the one line that is said at the end. network: the run's exchanges, read only if some were denied."""
    parts = [info.name, _counted(info.requests, "request")]
    if info.denied:
        from moat.trace.network import read_exchanges  # not at the top: most runs end without

        parts.append(f"{info.denied} denied")
        parts += _ways_out(read_exchanges(network))
        parts.append(f"see: moat trace {info.name} --network")
    return "moat: " + " · ".join(parts)


def commits_line(commits: Commits, folder: str) -> str:
    """Return the line that is said at the end of a run in a worktree. folder: the worktree's."""
    made = _counted(commits.count, "new commit") if commits.after != commits.before else "no new commits"
    see = f" · git log {commits.before[:10]}..{commits.branch}" if commits.count and commits.is_moved else ""
    return f"moat: {commits.branch} · {made} · {folder}{see}"


def commits_left(commits: Commits) -> list[str]:
    """Return a warning for what the run committed and its branch does not have."""
    warnings = []
    if not commits.is_moved:
        warnings.append(f"{commits.branch} was moved on this machine meanwhile, and stays where it is")
    if commits.others:
        shown = ", ".join(name.removeprefix("refs/") for name in commits.others[:SHOWN_LINES])
        rest = f" and {len(commits.others) - SHOWN_LINES} more" if len(commits.others) > SHOWN_LINES else ""
        warnings.append(f"commits of the run that are not on {commits.branch} are kept: {shown}{rest}; see: git log")
    return warnings


def refused_grants(info: RunInfo, network: Path) -> list[str]:
    """Return a line for each credential of a run that failed whose service answered 401, and accepted it no more."""
    if not info.exit_code or not info.grants:
        return []
    from moat.trace.network import read_exchanges

    refused: dict[str, ExchangeRecord] = {}
    for each in read_exchanges(network):
        for grant in each.grants:
            if each.status == UNAUTHORIZED:
                refused[grant] = each
            elif each.status < BAD_REQUEST:
                refused.pop(grant, None)
    profile = f" --profile {info.profile}" if info.profile else ""
    return [
        f"{each.host} did not accept the credential {grant} any more (401); renew it: moat grant{profile} {grant}"
        for grant, each in refused.items()
    ]


def own_secrets(spec: RunSpec) -> list[str]:
    """Return a warning for each variable of the user's that is a secret, or whose name says so."""
    warnings = []
    for name, value in spec.env.items():
        if reference := secret_of(spec, name):
            what = f"{name} (secrets in {FILE}, {reference}) is a variable inside, and the run can read it"
            warnings.append(f"{what}; moat grant keeps it outside")
        elif value and TELLING_NAME.search(name):
            owner = spec.origins.get(f"env.{name}", "-e")
            warnings.append(
                f"{owner} {name} looks like a credential, and the run can read it; moat grant keeps it outside"
            )
    return warnings


def _ways_out(exchanges: Iterable[ExchangeRecord]) -> list[str]:
    """Return what would let the denied requests out, each once, in the order they came."""
    lines = list(dict.fromkeys(each.allow_line for each in exchanges if each.outcome == "denied" and each.allow_line))
    if not lines:
        return []
    rest = f" and {len(lines) - SHOWN_LINES} more" if len(lines) > SHOWN_LINES else ""
    place = " (a --rule before the one that denies)" if any(line.startswith("--rule") for line in lines) else ""
    return [f"to allow: {' '.join(lines[:SHOWN_LINES])}{rest}{place}"]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
