"""Whose connection is this? A door's connections belong to its run; elsewhere a run token says so. No I/O.

A run is looked up again for every request, so that a replaced or dropped one takes effect in open tunnels.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from moat.api.endpoints import Forward, Tcp
from moat.api.http import DEFAULT_PORTS, Authority
from moat.api.rules import AddHeader, RemoveHeader, ReplaceToken, Rule, SetHeader, Sign
from moat.api.runs import NetworkPolicy, RunContext
from moat.net.hosts import HostPattern
from moat.net.paths import decoded_path
from moat.net.policy import Objection, basis, is_nameable, narrowed, objection, request_objection
from moat.net.rules import Ask, rules_for
from moat.proxy.connects import Connects
from moat.proxy.holds import Holds
from moat.proxy.inject import by_authority
from moat.proxy.limits import Limits
from moat.proxy.renderings import secrets_in
from moat.proxy.scrub import Spent

_MAX_NARROWED = 1_024  # authorities of one run whose part of the policy is kept


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run's context, with its rules by authority, made once per replacement.

    spent: what it has sent upstream so far, holds: what it has held of bodies now; both go on to whatever replaces it.
    scrubbed: hosts that may repeat what was spent. families: rules for every host that a pattern covers.
    """

    context: RunContext
    rules: Mapping[Authority, tuple[Rule, ...]] = field(repr=False)
    spent: Spent = field(default_factory=Spent, repr=False)
    scrubbed: frozenset[str] = frozenset()
    holds: Holds = field(default_factory=Holds, repr=False)
    families: tuple[tuple[HostPattern, Rule], ...] = ()
    _narrowed: dict[Authority, NetworkPolicy] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, context: RunContext, spent: Spent | None = None, holds: Holds | None = None) -> LiveRun:
        """Return context made ready. Raises AuthorityRefused for a rule that names no host."""
        wide = [rule for rule in context.rules if is_wide(rule)]
        rules = (
            by_authority(rule for rule in context.rules if rule not in wide) if wide else by_authority(context.rules)
        )
        hosts = frozenset(authority.host for authority in rules)
        families = tuple((HostPattern.parse(rule.match.authority), rule) for rule in wide)
        return cls(context, rules, spent or Spent(), hosts, holds or Holds(), families)

    def rules_for(self, authority: Authority) -> tuple[Rule, ...]:
        """Return the rules of an authority: its own, and those of its host that are for any port.

        Of the latter those about something that one of its own is about, the same header say, are left out.
        """
        own = self.rules.get(authority, ())
        if self.families:
            own = (*own, *(rule for pattern, rule in self.families if _is_in(pattern, authority)))
        default = Authority("https", authority.host, DEFAULT_PORTS["https"])
        if authority.scheme != "https" or authority == default:
            return own
        named = set(map(_subject, own))
        others = (rule for rule in self.rules.get(default, ()) if rule.match.any_port)
        return (*own, *(rule for rule in others if _subject(rule) not in named))

    def objection(self, authority: Authority) -> Objection | None:
        """Return why the run may send nothing to authority, or None."""
        return objection(self._policy(authority), self._granted, authority)

    def request_objection(self, authority: Authority, method: str, path: str) -> Objection | None:
        """Return why the run may not send this request, or None. path: without its query."""
        return request_objection(self._policy(authority), self._granted, authority, method, path)

    def basis(self, authority: Authority, method: str, path: str) -> str:
        """Return what of the policy lets a request out, for records. path: without its query."""
        ask = Ask(authority, method, decoded_path(path))
        found = basis(self._policy(authority), self._granted, ask)
        return f"grant {self._grants_at(authority)}" if found == "grant" else found

    def _grants_at(self, authority: Authority) -> str:
        return ", ".join(dict.fromkeys(rule.grant for rule in self.rules_for(authority) if rule.grant))

    def rules_of_host(self, host: str) -> Iterator[Rule]:
        """Return the rules for host, whatever the port."""
        for authority, rules in self.rules.items():
            if authority.host == host:
                yield from rules
        for pattern, rule in self.families:
            if pattern.covers_host(host):
                yield rule

    def has_rules_at(self, host: str) -> bool:
        """Whether any rule is for host, whatever the port."""
        return host in self.scrubbed or any(pattern.covers_host(host) for pattern, _ in self.families)

    def is_nameable(self, host: str) -> bool:
        """Whether the run's resolver gives host an address."""
        if not self.context.is_open:
            return False
        is_place = any(isinstance(each.where, Tcp) and each.where.name == host for each in self.context.endpoints)
        return is_place or is_nameable(self.context.policy, self._granted, host)

    def has_finer_rules(self, authority: Authority) -> bool:
        """Whether rules of the policy tell requests to authority apart, by path or method."""
        return any(rule.path or rule.methods for rule in rules_for(self.context.policy.rules, authority))

    @property
    def _granted(self) -> Collection[Authority]:
        """Where credentials are spent: what strict lets out too."""
        return _Granted(self.rules.keys(), self.families) if self.families else self.rules.keys()

    def _policy(self, authority: Authority) -> NetworkPolicy:
        """Return the policy as far as it concerns authority: a thousand rules for others cost a request nothing."""
        if not self.context.policy.rules:
            return self.context.policy
        found = self._narrowed.get(authority)
        if found is None:
            if len(self._narrowed) >= _MAX_NARROWED:
                self._narrowed.clear()
            found = self._narrowed[authority] = narrowed(self.context.policy, authority)
        return found


class _Granted(Collection[Authority]):
    """The authorities of rules, and all of those that a pattern covers."""

    def __init__(self, named: Collection[Authority], families: tuple[tuple[HostPattern, Rule], ...]) -> None:
        self._named = named
        self._families = families

    def __contains__(self, authority: object) -> bool:
        return authority in self._named or (
            isinstance(authority, Authority) and any(_is_in(pattern, authority) for pattern, _ in self._families)
        )

    def __iter__(self) -> Iterator[Authority]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)


class Admission:
    """The live runs, by id and by token. held_bytes: how much of bodies each may hold.

    connects: what was let through by the runs as they are now.
    """

    def __init__(self, held_bytes: int = Limits().held_bytes) -> None:
        self.connects = Connects()
        self._held_bytes = held_bytes
        self._by_id: dict[str, LiveRun] = {}
        self._by_digest: dict[str, str] = {}

    def __iter__(self) -> Iterator[LiveRun]:
        return iter(self._by_id.values())

    def put(self, context: RunContext) -> None:
        """Add a run or replace it whole."""
        self.connects.clear()
        known = self._by_id.get(context.run_id)
        if known is not None:
            self._by_digest.pop(known.context.token_sha256, None)
        self._by_digest[context.token_sha256] = context.run_id
        lasting = (known.spent, known.holds) if known is not None else (None, Holds(self._held_bytes))
        run = self._by_id[context.run_id] = LiveRun.of(context, *lasting)
        of_endpoints = (rule for each in context.endpoints if isinstance(each.how, Forward) for rule in each.how.rules)
        run.spent.expect(_secrets((*context.rules, *of_endpoints)))

    def drop(self, run_id: str) -> None:
        """Forget a run; unknown ones are fine."""
        self.connects.clear()
        run = self._by_id.pop(run_id, None)
        if run is not None:
            self._by_digest.pop(run.context.token_sha256, None)

    def by_id(self, run_id: str) -> LiveRun | None:
        """Return the run as it is now."""
        return self._by_id.get(run_id)

    def by_token(self, proxy_authorization: str) -> LiveRun | None:
        """Return the run whose token is the password of this `Basic` value (the user name is free), or None.

        Looked up by its digest: nobody can come nearer to a token by the time that takes, and it does not grow with
        the number of runs. What is found is compared in constant time.
        """
        token = basic_password(proxy_authorization)
        if token is None:
            return None
        digest = hashlib.sha256(token).hexdigest()
        run = self._by_id.get(self._by_digest.get(digest, ""))
        return run if run is not None and hmac.compare_digest(digest, run.context.token_sha256) else None


def is_wide(rule: Rule) -> bool:
    """Whether a rule is for every host that a pattern covers. No other kind may be: `by_authority` refuses it."""
    return isinstance(rule, Sign) and rule.match.authority.startswith("*.")


def _is_in(pattern: HostPattern, authority: Authority) -> bool:
    return authority.scheme == "https" and pattern.matches(authority)


def _subject(rule: Rule) -> tuple[object, ...]:
    """Return what a rule is about: of two with one subject, the one that names the port holds there."""
    match rule:
        case SetHeader() | AddHeader() | RemoveHeader():
            return "header", rule.name.lower()
        case ReplaceToken():
            return "token", rule.placeholder
        case _:
            return type(rule), rule.match.paths


def _secrets(rules: Iterable[Rule]) -> Iterator[str]:
    for rule in rules:
        if isinstance(rule, ReplaceToken) or (isinstance(rule, SetHeader | AddHeader) and rule.is_secret):
            yield from secrets_in(rule.value)


def basic_password(value: str) -> bytes | None:
    """Return the password in a `Basic` authorization value (RFC 7617), or None when it is none."""
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded.partition(b":")[2] or None
