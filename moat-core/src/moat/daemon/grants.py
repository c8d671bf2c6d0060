"""What grants mean for one run: rules for the proxy, placeholders for inside. The only place that reads secrets.

    grant names ──▶ store ──▶ Credential ──▶ provider.rules ─────────┐
                                        └──▶ provider.container ─────┼──▶ Resolved
    RunSpec ──▶ moat_configure_run of every plugin ──────────────────┤
    Extras of the registration ──▶ `given` ──────────────────────────┤
    revoked by its service ──▶ `revocation`: why there is 401 ───────┘

The store's key is asked for here and not before: a locked keyring is an error of this one request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from moat.api.container import ContainerSetup, merge
from moat.api.credentials import Credential, CredentialProvider
from moat.api.endpoints import (
    Endpoint,
    EndpointProvider,
    Forward,
    ProxyPath,
    Question,
    Reply,
    Respond,
    Stream,
    Tcp,
    UnixPath,
)
from moat.api.errors import GrantFailed, GrantMissing, MoatError, PlanConflict, PluginError, UsageError
from moat.api.rules import AddHeader, ReplaceToken, Rewriter, RewriteResponse, Rule, SetHeader
from moat.api.runs import Contribution, RunSpec
from moat.daemon import given
from moat.daemon.extras import Extras
from moat.daemon.revocation import explanations
from moat.ids import checked_name
from moat.log import Redactor
from moat.plugins.discovery import rewriter_candidate
from moat.redaction import SecretMarks

NO_EXTRAS = Extras()


class CredentialSource(Protocol):
    """What is asked of the credential store."""

    def load(self, name: str) -> Credential:
        """Return a credential. Raises GrantMissing, StoreLocked or StoreCorrupt."""
        ...

    def mark(self, name: str) -> str:
        """Return what tells a credential from the next one, without the store's key. Raises MoatError."""
        ...

    def in_profile(self, profile: str) -> CredentialSource:
        """Return the credentials of a profile, "" is the default one."""
        ...


class Contributors(Protocol):
    """What is asked of the plugins."""

    def credential_provider(self, name: str) -> CredentialProvider:
        """Return a provider. Raises UsageError, listing what is installed."""
        ...

    def endpoint_provider(self, name: str) -> EndpointProvider | None:
        """Return what serves the endpoints of a grant, if anything does."""
        ...

    async def respond(self, question: Question, credential: Credential) -> Reply:
        """Return the answer of credential's provider. Raises PluginError."""
        ...

    def configure_run(self, spec: RunSpec) -> Sequence[tuple[str, Contribution]]:
        """Return every plugin's contribution with the plugin's name."""
        ...


@dataclass(frozen=True, slots=True)
class Mark:
    """Which credential a grant had at a moment. stored: what tells it from the next one; end: why it was over."""

    profile: str
    grant: str
    stored: str
    end: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """Everything that grants and plugins put into one run. marks: what it was made of."""

    rules: tuple[Rule, ...] = field(default=(), repr=False)
    setup: ContainerSetup = field(default_factory=ContainerSetup)
    endpoints: tuple[Endpoint, ...] = ()
    marks: tuple[Mark, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where credentials are spent: `host` or `host:port`, sorted."""
        return tuple(sorted({rule.match.authority for rule in self.rules}))


class Grants:
    """Resolves grants. Blocking (a keyring, files): call it from a thread.

    revoked: why a grant of a profile is not renewed any more, "" if it is.
    """

    def __init__(self, store: CredentialSource, plugins: Contributors, redactor: Redactor) -> None:
        self._store = store
        self._plugins = plugins
        self._redactor = redactor
        self.revoked: Callable[[str, str], str] = lambda profile, grant: ""

    def provider(self, name: str) -> CredentialProvider:
        """Return whose credentials a grant's are. Raises UsageError, PluginError."""
        return self._plugins.credential_provider(name)

    async def respond(self, question: Question, credential: Credential) -> Reply:
        """Return the answer of credential's provider. Raises PluginError."""
        return await self._plugins.respond(question, credential)

    def resolve(self, spec: RunSpec, extras: Extras = NO_EXTRAS) -> Resolved:
        """Return what a run with these grants gets; the secrets are taught to the redactor first.

        extras: what its registration brought beyond them.
        Raises UsageError for a grant that no plugin provides, GrantMissing naming all that are not stored, StoreLocked,
        StoreCorrupt, PluginError of a plugin that fails, and PlanConflict when two contributors disagree.
        """
        providers = [self._plugins.credential_provider(checked_name(name, "grant")) for name in _unique(spec.grants)]
        # Before anything is loaded: what is replaced meanwhile must look replaced.
        marks = tuple(self._mark(spec.profile, name) for name in dict.fromkeys((*spec.grants, *extras.grants)))
        rules: list[Rule] = []
        setups: list[tuple[str, ContainerSetup]] = []
        endpoints: list[Endpoint] = []
        store = self._store.in_profile(spec.profile) if providers else self._store
        for provider, credential in zip(providers, _load(store, [each.name for each in providers]), strict=True):
            rules += self._taught(credential, provider.rules(credential))
            setups.append((f"the grant {provider.name}", provider.container(credential)))
            endpoints += self._endpoints(credential)
        for owner, contribution in self._plugins.configure_run(spec):
            rules += self._learned(contribution.rules)
            setups.append((owner, contribution.setup))
        if extras != NO_EXTRAS:
            given = self._given(spec, extras)
            rules, endpoints = [*given.rules, *rules], [*endpoints, *given.endpoints]
        told = tuple(explanations(rules, {mark.grant: mark.end for mark in marks}, spec.profile))
        return Resolved((*told, *rules), merge(setups), _distinct(endpoints), marks)

    def learn(self, profile: str, names: Iterable[str]) -> None:
        """Teach the redactor credentials that a run spends beside its grants; what is missing is passed over."""
        store = self._store.in_profile(profile)
        for name in names:
            with contextlib.suppress(MoatError):
                self._redactor.learn(store.load(checked_name(name, "grant")).secret)

    def known(self) -> SecretMarks:
        """Return what the secrets that this process knows are known by."""
        return self._redactor.marks()

    def cleaned(self, words: Iterable[str]) -> tuple[str, ...]:
        """Return words without any secret that this process knows."""
        return tuple(map(self._redactor.clean, words))

    def is_current(self, resolved: Resolved) -> bool:
        """Return whether no grant has been replaced or revoked since it was resolved. Asks for no key."""
        return all(self._mark(mark.profile, mark.grant) == mark for mark in resolved.marks)

    def _mark(self, profile: str, grant: str) -> Mark:
        try:
            stored = self._store.in_profile(profile).mark(checked_name(grant, "grant"))
        except MoatError:  # whoever loads it says so
            stored = ""
        return Mark(profile, grant, stored, self.revoked(profile, grant))

    def _given(self, spec: RunSpec, extras: Extras) -> Resolved:
        """Return what the registration itself brought; its own rules come first, and so win."""
        given.check(extras)
        rules = list(self._learned(given.rules_of(extras)))
        relays = given.mcp_endpoints(extras.mcp_servers, self._store.in_profile(spec.profile).load)
        endpoints = [*self._learned_of(relays), *given.host_endpoints(extras.host_ports)]
        if extras.aws_config is not None:
            of_role, at_role = self._given_role(spec, given.aws_credential(extras.aws_config))
            rules, endpoints = [*rules, *of_role], [*endpoints, *at_role]
        return Resolved(tuple(rules), endpoints=tuple(endpoints))

    def _given_role(self, spec: RunSpec, credential: Credential) -> tuple[Sequence[Rule], Sequence[Endpoint]]:
        if credential.provider in spec.grants:
            raise UsageError("aws_config and the grant aws are two roles for one run", hint="leave out one of them")
        try:
            of_role = self._taught(credential, self._plugins.credential_provider(credential.provider).rules(credential))
            at_role = self._endpoints(credential)
        except GrantFailed as refused:
            raise UsageError(f"aws_config: {refused.problem}", hint=refused.hint) from None
        if not of_role and not at_role:
            raise UsageError("the installed AWS provider serves no runs", hint="run: pip install -U moat-provider-aws")
        return of_role, at_role

    def _endpoints(self, credential: Credential) -> Sequence[Endpoint]:
        provider = self._plugins.endpoint_provider(credential.provider)
        found = () if provider is None else provider.endpoints(credential)
        if any(_is_here(each) for each in found):
            raise PluginError(f"{credential.provider} wants a port of this machine, which only users open",
                              hint="run: moat plugins")  # fmt: skip
        # Who answers is asked by the grant's name, so that one provider cannot answer in another's.
        own = [replace(each, grant=credential.provider) if isinstance(each.how, Respond) else each for each in found]
        return self._learned_of(own)

    def _learned_of(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        for endpoint in endpoints:
            match endpoint.how:
                case Forward(upstream, rules):
                    self._learned(rules)
                    self._redactor.learn(upstream.client_certificate)
                case Stream(upstream, prelude):
                    self._redactor.learn(prelude.decode("latin-1").strip())
                    self._redactor.learn(upstream.client_certificate)
                case Respond(reply=Reply(secrets=secrets)):
                    for secret in secrets:
                        self._redactor.learn(secret)
        return endpoints

    def _taught(self, credential: Credential, rules: Sequence[Rule]) -> Sequence[Rule]:
        self._redactor.learn(credential.secret)
        return self._learned(rules)

    def _learned(self, rules: Sequence[Rule]) -> Sequence[Rule]:
        for rule in rules:
            if isinstance(rule, RewriteResponse) and isinstance(rule.how, Rewriter):
                rewriter_candidate(rule.how.name)  # what is not installed is told now and not with the first answer
        for value in _values(rules):
            self._redactor.learn(value)
            self._redactor.learn(value.rpartition(" ")[2])  # without its scheme: base64 of a secret is a secret
        return rules


def _load(store: CredentialSource, names: Sequence[str]) -> list[Credential]:
    found: list[Credential] = []
    missing: list[tuple[str, GrantMissing]] = []
    for name in names:
        try:
            found.append(store.load(name))
        except GrantMissing as absent:
            missing.append((name, absent))
    if missing:
        raise _all_missing(missing)
    return found


def _is_here(endpoint: Endpoint) -> bool:
    how = endpoint.how
    return not isinstance(how, Respond) and how.upstream.is_here


def _distinct(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    owners: dict[str, str] = {}
    for endpoint in endpoints:
        place = _place(endpoint)
        if (owner := owners.setdefault(place, endpoint.grant)) != endpoint.grant:
            raise PlanConflict(f"the grants {owner} and {endpoint.grant} both want {place}")
    if len(owners) < len(endpoints):
        raise PluginError("a provider wants one place for two endpoints", hint="run: moat plugins")
    return tuple(endpoints)


def _place(endpoint: Endpoint) -> str:
    """Return what no two endpoints may share."""
    match endpoint.where:
        case ProxyPath(prefix):
            return prefix
        case Tcp(name, port):
            return f"{name}:{port}"
        case UnixPath(path):
            return path


def _values(rules: Sequence[Rule]) -> Iterator[str]:
    for rule in rules:
        if isinstance(rule, SetHeader | AddHeader | ReplaceToken):
            yield rule.value


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    if len(names) > 100:
        raise UsageError(f"{len(names)} grants are too many for one run", hint="name at most 100")
    return tuple(dict.fromkeys(names))


def _all_missing(missing: Sequence[tuple[str, GrantMissing]]) -> GrantMissing:
    names = ", ".join(name for name, _ in missing)
    hints = "\n".join(absent.hint or f"run: moat grant {name}" for name, absent in missing)
    noun = "grant" if len(missing) == 1 else "grants"
    return GrantMissing(f"missing {noun}: {names}", hint=hints)
