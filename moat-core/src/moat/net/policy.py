"""May this leave? One question, asked of every request, answered from the policy, the grants and the one Authority.

Decides on names; what a name resolves to is judged at dial time by `addresses`. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache

from moat.api.http import DEFAULT_PORTS, Authority
from moat.api.runs import NetworkPolicy, NetworkRule
from moat.net.addresses import is_metadata
from moat.net.authority import is_address
from moat.net.hosts import HostPattern, is_this_machine
from moat.net.paths import decoded_path
from moat.net.rules import AmbiguousPath, Ask, allowing_line, host_verdict, rule_text, rules_for, verdict

# Names under which clouds answer with the machine's own credentials: GCP (two), AWS, Azure.
METADATA_NAMES = frozenset(
    ("metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal",
     "metadata.azure.internal")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a request may not leave. allow_line: what the user adds to let it, "" where nothing would.

    rule: the one that denies, as text, which the line must stand before; "" where the place of the line is the same.
    why: a word for what denies beside rules and mode.
    """

    reason: str
    allow_line: str = ""
    rule: str = ""
    why: str = ""

    @property
    def basis(self) -> str:
        """What denies, for records."""
        return self.rule or self.why or "strict"


def objection(
    policy: NetworkPolicy, grant_authorities: Collection[Authority], authority: Authority
) -> Objection | None:
    """Return why nothing may go to authority, or None when something may: for what is not known to be a request yet.

    grant_authorities: where the run's credentials are spent; strict lets these out too.
    """
    if _is_metadata(authority.host):
        return _metadata(authority)
    rule = host_verdict(policy.rules, authority) if policy.rules else None
    if rule is not None:
        return None if rule.verdict == "allow" else _denied_by(rule, f"--rule 'allow {authority}'")
    return _unlisted(policy, grant_authorities, authority)


def request_objection(
    policy: NetworkPolicy, grant_authorities: Collection[Authority], authority: Authority, method: str, path: str
) -> Objection | None:
    """Return why a request may not leave, or None when it may. path: as it is sent, without its query."""
    if not policy.rules or _is_metadata(authority.host):
        return objection(policy, grant_authorities, authority)
    ask = Ask(authority, method, decoded_path(path))
    try:
        rule = verdict(policy.rules, ask)
    except AmbiguousPath:
        reason = (
            f"a rule asks for the path, and servers read this one of {authority} in more than one way: send it without "
            "`//`, `\\`, `;`, dot segments and encoded slashes, and encoded once"
        )
        return Objection(reason, why="path")
    if rule is not None:
        return None if rule.verdict == "allow" else _denied_by(rule, allowing_line(ask))
    found = _unlisted(policy, grant_authorities, authority)
    if found is not None and rules_for(policy.rules, authority):
        return Objection(f"strict policy: no rule allows {method} on this path of {authority}", allowing_line(ask))
    return found


def basis(policy: NetworkPolicy, grant_authorities: Collection[Authority], ask: Ask) -> str:
    """Return what lets a request out, for records: a rule's text, a line of allow, "grant", or the mode."""
    try:
        rule = verdict(policy.rules, ask) if policy.rules else None
    except AmbiguousPath:
        rule = None
    if rule is not None:
        return rule_text(rule)
    if policy.mode == "permissive":
        return "permissive"
    if ask.authority in grant_authorities:
        return "grant"
    found = (pattern for pattern in policy.allow if _patterns((pattern,))[0].matches(ask.authority))
    return f"allow {next(found, policy.mode)}"


def narrowed(policy: NetworkPolicy, authority: Authority) -> NetworkPolicy:
    """Return policy with the rules that speak of authority only: what it answers for authority is the same."""
    return replace(policy, rules=rules_for(policy.rules, authority)) if policy.rules else policy


def is_nameable(policy: NetworkPolicy, grant_authorities: Collection[Authority], host: str) -> bool:
    """Whether the policy lets anything out to host on the ports of the transparent path."""
    candidates = (Authority(scheme, host, port) for scheme, port in DEFAULT_PORTS.items())
    return any(objection(policy, grant_authorities, each) is None for each in candidates)


def look_up_objection(found: Objection | None, host: str) -> Objection | None:
    """Return found, the objection to a host that is looked up, in words that name no port of this machine."""
    if found is None or not is_this_machine(host):
        return found
    return Objection(f"no port of this machine is open to this run as {host}", "--host-port PORT")


def allow_line(authority: Authority) -> str:
    """Return the flag that would let authority out, as the user types it."""
    return f"--allow-host {authority}"


def _unlisted(
    policy: NetworkPolicy, grant_authorities: Collection[Authority], authority: Authority
) -> Objection | None:
    """Judge what no rule speaks of."""
    is_here = is_this_machine(authority.host)
    if not is_here and (policy.mode == "permissive" or authority in grant_authorities):
        return None
    if any(pattern.matches(authority) for pattern in _patterns(policy.allow)):
        return None
    if is_here:
        return Objection(
            f"port {authority.port} of this machine is not open to this run", f"--host-port {authority.port}"
        )
    return Objection(f"strict policy: {authority} is not allowed", allow_line(authority))


def _denied_by(rule: NetworkRule, line: str) -> Objection:
    """The first rule that fits decides, so what allows it must stand before."""
    text = rule_text(rule)
    return Objection(f"denied by the rule {text!r}, unless a rule before it allows", line, text)


def _metadata(authority: Authority) -> Objection:
    return Objection(f"{authority.host} is a metadata service, which no policy opens", why="metadata")


def _is_metadata(host: str) -> bool:
    return host in METADATA_NAMES or (is_address(host) and is_metadata(host))


@lru_cache(maxsize=256)
def _patterns(allow: tuple[str, ...]) -> tuple[HostPattern, ...]:
    return tuple(HostPattern.parse(text) for text in allow)
