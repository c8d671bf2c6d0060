"""What grants mean for one run: rules for the proxy, placeholders for inside. The only place that reads secrets.

    grant names ──▶ store ──▶ Credential ──▶ provider.rules ─────────┐
                                        └──▶ provider.container ─────┼──▶ Resolved
    RunSpec ──▶ moat_configure_run of every plugin ──────────────────┘

The store's key is asked for here and not before: a locked keyring is an error of this one request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from moat.api.container import ContainerSetup, merge
from moat.api.credentials import Credential, CredentialProvider
from moat.api.endpoints import Endpoint, EndpointProvider
from moat.api.errors import GrantMissing, PlanConflict, PluginError, UsageError
from moat.api.rules import AddHeader, ReplaceToken, Rule, SetHeader
from moat.api.runs import Contribution, RunSpec
from moat.ids import checked_name
from moat.log import Redactor


class CredentialSource(Protocol):
    """What is asked of the credential store."""

    def load(self, name: str) -> Credential:
        """Return a credential. Raises GrantMissing, StoreLocked or StoreCorrupt."""
        ...


class Contributors(Protocol):
    """What is asked of the plugins."""

    def credential_provider(self, name: str) -> CredentialProvider:
        """Return a provider. Raises UsageError, listing what is installed."""
        ...

    def endpoint_provider(self, name: str) -> EndpointProvider | None:
        """Return what serves the endpoints of a grant, if anything does."""
        ...

    def configure_run(self, spec: RunSpec) -> Sequence[tuple[str, Contribution]]:
        """Return every plugin's contribution with the plugin's name."""
        ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """Everything that grants and plugins put into one run."""

    rules: tuple[Rule, ...] = field(default=(), repr=False)
    setup: ContainerSetup = field(default_factory=ContainerSetup)
    endpoints: tuple[Endpoint, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where credentials are spent: `host` or `host:port`, sorted."""
        return tuple(sorted({rule.match.authority for rule in self.rules}))


class Grants:
    """Resolves grants. Blocking (a keyring, files): call it from a thread."""

    def __init__(self, store: CredentialSource, plugins: Contributors, redactor: Redactor) -> None:
        self._store = store
        self._plugins = plugins
        self._redactor = redactor

    def resolve(self, spec: RunSpec) -> Resolved:
        """Return what a run with these grants gets; the secrets are taught to the redactor first.

        Raises UsageError for a grant that no plugin provides, GrantMissing naming all that are not stored, StoreLocked,
        StoreCorrupt, PluginError of a plugin that fails, and PlanConflict when two contributors disagree.
        """
        providers = [self._plugins.credential_provider(checked_name(name, "grant")) for name in _unique(spec.grants)]
        rules: list[Rule] = []
        setups: list[tuple[str, ContainerSetup]] = []
        endpoints: list[Endpoint] = []
        for provider, credential in zip(providers, self._load([each.name for each in providers]), strict=True):
            rules += self._taught(credential, provider.rules(credential))
            setups.append((f"the grant {provider.name}", provider.container(credential)))
            endpoints += self._endpoints(credential)
        for owner, contribution in self._plugins.configure_run(spec):
            rules += self._learned(contribution.rules)
            setups.append((owner, contribution.setup))
        return Resolved(tuple(rules), merge(setups), _distinct(endpoints))

    def _load(self, names: Sequence[str]) -> list[Credential]:
        found: list[Credential] = []
        missing: list[tuple[str, GrantMissing]] = []
        for name in names:
            try:
                found.append(self._store.load(name))
            except GrantMissing as absent:
                missing.append((name, absent))
        if missing:
            raise _all_missing(missing)
        return found

    def _endpoints(self, credential: Credential) -> Sequence[Endpoint]:
        provider = self._plugins.endpoint_provider(credential.provider)
        endpoints = () if provider is None else provider.endpoints(credential)
        for endpoint in endpoints:
            self._learned(endpoint.how.rules)
            self._redactor.learn(endpoint.how.upstream.client_certificate)
        return endpoints

    def _taught(self, credential: Credential, rules: Sequence[Rule]) -> Sequence[Rule]:
        self._redactor.learn(credential.secret)
        return self._learned(rules)

    def _learned(self, rules: Sequence[Rule]) -> Sequence[Rule]:
        for value in _values(rules):
            self._redactor.learn(value)
            self._redactor.learn(value.rpartition(" ")[2])  # without its scheme: base64 of a secret is a secret
        return rules


def _distinct(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    owners: dict[str, str] = {}
    for endpoint in endpoints:
        if (owner := owners.setdefault(endpoint.where.prefix, endpoint.grant)) != endpoint.grant:
            raise PlanConflict(f"the grants {owner} and {endpoint.grant} both want {endpoint.where.prefix}")
    if len(owners) < len(endpoints):
        raise PluginError("a provider wants one path for two endpoints", hint="run: moat plugins")
    return tuple(endpoints)


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
