"""A typed face over pluggy, and what happens when a plugin fails: the one place that catches a plugin's exceptions.

    moat_*_providers, moat_runtimes,
    moat_secret_sources,                     union; one name twice is a PluginError naming both distributions;
    moat_register_commands                   a plugin that raises is disabled, see `problems`
    moat_configure_run                       every answer counts; a plugin that raises refuses the run
    moat_run_started, moat_run_stopped,      observers; an exception is logged and ignored
    moat_exchange_done

Results never depend on the order of plugins: they are taken by distribution and name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

import pluggy

from moat.api import hookspecs
from moat.api.errors import MoatError, PluginError, SecretFailed, UsageError
from moat.api.light import dataclass
from moat.ids import NAME
from moat.plugins.discovery import Candidate, installed

if TYPE_CHECKING:  # what a plugin can be is imported when it is asked for: most commands ask for little
    import click

    from moat.api.agents import AgentProvider
    from moat.api.credentials import Credential, CredentialProvider, Host
    from moat.api.endpoints import EndpointProvider, Question, Reply
    from moat.api.runs import Contribution, ExchangeRecord, RunInfo, RunSpec
    from moat.api.runtimes import Runtime
    from moat.api.secrets import SecretSource

T = TypeVar("T", "AgentProvider", "CredentialProvider", "EndpointProvider", "Runtime", "SecretSource")

RESERVED = frozenset({"list", "show", "revoke"})  # words of `moat grant` that no provider may be called
OWN_SCHEMES = frozenset({"env", "file", "cmd", "op"})  # of secrets, which no source may be called
SCHEMES_OF = {"ssm": "moat-provider-aws"}  # what to install for the schemes of moat's own plugins
_NEAR = 0.8  # of difflib: githb is github, gitlab is not

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """A plugin that is disabled, and why."""

    plugin: Candidate
    text: str

    def __str__(self) -> str:
        return f"{self.plugin.title}: {self.text}"


@dataclass(frozen=True, slots=True)
class Offer(Generic[T]):
    """What a plugin offers, and which plugin."""

    plugin: Candidate
    value: T


class Plugins:
    """The plugins of this installation. Made once by each composition root and handed down."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._manager = pluggy.PluginManager("moat")
        self._manager.add_hookspecs(hookspecs)
        self._candidates = {candidate.title: candidate for candidate in candidates}
        self._problems: dict[str, Problem] = {}
        self._hooks: dict[str, tuple[str, ...]] = {}
        for candidate in self._candidates.values():
            self._register(candidate)

    @classmethod
    def load(cls) -> Plugins:
        """Import every installed plugin. Never raises for a broken one: see problems."""
        return cls(installed())

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every installed plugin, working or not."""
        return tuple(self._candidates.values())

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The disabled plugins, those known so far: asking for providers or commands may find more."""
        return tuple(self._problems.values())

    def hooks_of(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the hooks that a plugin implements, by name: none where it could not be loaded."""
        return self._hooks.get(candidate.title, ())

    def credential_offers(self) -> list[Offer[CredentialProvider]]:
        """Return every credential provider with its plugin, by name. Raises PluginError when two claim one name."""
        from moat.api.credentials import CredentialProvider

        kind = CredentialProvider
        return self._union("moat_credential_providers", kind, RESERVED)  # type: ignore[type-abstract] # for isinstance

    def credential_providers(self) -> list[CredentialProvider]:
        """Return every credential provider, by name. Raises like credential_offers."""
        return [offer.value for offer in self.credential_offers()]

    def credential_provider(self, name: str) -> CredentialProvider:
        """Return the provider called name.

        Raises UsageError, listing what is installed, when there is none; PluginError when its plugin is broken.
        """
        providers = {provider.name: provider for provider in self.credential_providers()}
        if name in providers:
            return providers[name]
        for problem in self.problems:
            if name == problem.plugin.name or problem.plugin.distribution == f"moat-provider-{name}":
                raise PluginError(f"the plugin for {name} is disabled: {problem}", hint="run: moat plugins")
        absent = f"no provider called {name!r} is installed; there are: {', '.join(providers) or 'none'}"
        raise UsageError(absent, hint=how_to_have(name, providers))

    def agent_offers(self) -> list[Offer[AgentProvider]]:
        """Return every agent with its plugin, by name. Raises PluginError when two claim one name."""
        from moat.api.agents import AgentProvider

        return self._union("moat_agent_providers", AgentProvider, frozenset())  # type: ignore[type-abstract] # for isinstance

    def endpoint_provider(self, name: str) -> EndpointProvider | None:
        """Return what serves the endpoints of the grant called name, None where it has none. Raises PluginError."""
        from moat.api.endpoints import EndpointProvider

        kind = EndpointProvider
        offers = self._union("moat_endpoint_providers", kind, frozenset())  # type: ignore[type-abstract] # for isinstance
        return next((offer.value for offer in offers if offer.value.name == name), None)

    async def respond(self, question: Question, credential: Credential) -> Reply:
        """Return the answer of credential's provider to a question of a run's. Raises PluginError."""
        from moat.api.endpoints import Reply

        provider = self.endpoint_provider(credential.provider)
        if provider is None:
            raise PluginError(f"no plugin serves the endpoints of {credential.provider}", hint="run: moat plugins")
        try:
            reply = await provider.respond(question, credential)
        except Exception as failure:
            raise PluginError(f"{provider.name} did not answer: {_told(failure)}") from failure
        if not isinstance(reply, Reply):
            raise PluginError(f"{provider.name} answered with {type(reply).__name__}, not with a Reply")
        return reply

    def secret_source_offers(self) -> list[Offer[SecretSource]]:
        """Return every source of secrets with its plugin, by name. Raises PluginError when two claim one name."""
        from moat.api.secrets import SecretSource

        kind = SecretSource
        return self._union("moat_secret_sources", kind, OWN_SCHEMES)  # type: ignore[type-abstract] # for isinstance

    def describe_secret(self, scheme: str, reference: str) -> str:
        """Return what fetching a secret does.

        Raises SecretFailed, PluginError, and UsageError for a scheme that nobody knows.
        """
        source = self._secret_source(scheme)
        try:
            return str(source.describe(reference))
        except SecretFailed:
            raise
        except Exception as failure:
            raise PluginError(f"{scheme}:// cannot be read: {_told(failure)}", hint="run: moat plugins") from failure

    async def fetch_secret(self, scheme: str, reference: str, host: Host) -> str:
        """Return a secret's value. Raises like describe_secret; of what a plugin did wrong only the kind is told."""
        source = self._secret_source(scheme)
        try:
            value = await source.fetch(reference, host)
        except SecretFailed:
            raise
        except Exception as failure:
            problem = f"{scheme}:// could not be fetched ({type(failure).__name__})"
            raise PluginError(problem, hint="run: moat plugins") from failure
        if not isinstance(value, str):
            raise PluginError(f"{scheme}:// gave {type(value).__name__}, not text", hint="run: moat plugins")
        return value

    def _secret_source(self, scheme: str) -> SecretSource:
        offers = self.secret_source_offers()
        if (found := next((offer.value for offer in offers if offer.value.name == scheme), None)) is not None:
            return found
        known = ", ".join(f"{name}://" for name in sorted({*OWN_SCHEMES, *(offer.value.name for offer in offers)}))
        hint = f"run: pip install {SCHEMES_OF[scheme]}" if scheme in SCHEMES_OF else f"there are {known}"
        raise UsageError(f"nothing that is installed fetches {scheme}://", hint=hint)

    def runtimes(self) -> list[Runtime]:
        """Return every runtime, by name. Raises PluginError when two claim one name."""
        return [offer.value for offer in self.runtime_offers()]

    def runtime_offers(self) -> list[Offer[Runtime]]:
        """Return every runtime with its plugin, by name. Raises PluginError when two claim one name."""
        from moat.api.runtimes import Runtime

        return self._union("moat_runtimes", Runtime, frozenset())  # type: ignore[type-abstract] # for isinstance

    def register_commands(self, cli: click.Group) -> None:
        """Add every plugin's commands to cli. Raises PluginError when one is there already, naming who wants it."""
        import click

        owners = dict.fromkeys(cli.commands, "moat-core")
        for plugin, call in self._calls("moat_register_commands"):
            scratch = click.Group()
            try:
                call(cli=scratch)
            except Exception as failure:  # noqa: BLE001 # whatever a hook raises: disabled and reported
                self._disable(plugin, f"moat_register_commands failed: {_told(failure)}")
                continue
            for name, command in scratch.commands.items():
                _claim(owners, f"the command {name!r}", name, plugin)
                cli.add_command(command, name)

    def configure_run(self, spec: RunSpec) -> list[tuple[str, Contribution]]:
        """Return what each plugin adds to a run, with its distribution. Raises PluginError when one fails."""
        from moat.api.runs import Contribution

        contributions = []
        for plugin, call in self._calls("moat_configure_run"):
            try:
                answer = call(spec=spec)
            except Exception as failure:
                raise PluginError(
                    f"{plugin.title} refused the run: {_told(failure)}", hint="run: moat plugins"
                ) from failure
            if answer is None:
                continue
            if not isinstance(answer, Contribution):
                raise PluginError(f"{plugin.title}: moat_configure_run returned {type(answer).__name__}")
            contributions.append((plugin.distribution, answer))
        return contributions

    def run_started(self, run: RunInfo) -> None:
        """Tell every plugin that a run starts."""
        self._tell("moat_run_started", run=run)

    def run_stopped(self, run: RunInfo, exit_code: int) -> dict[str, Mapping[str, str]]:
        """Tell every plugin that a run ended; return what they want kept, by distribution."""
        answers = self._tell("moat_run_stopped", run=run, exit_code=exit_code)
        return {owner: dict(answer) for owner, answer in answers if isinstance(answer, Mapping)}

    @property
    def watches_exchanges(self) -> bool:
        """Whether any plugin is told about exchanges."""
        return bool(self._calls("moat_exchange_done"))

    def exchange_done(self, run_id: str, exchange: ExchangeRecord) -> None:
        """Tell every plugin about an exchange."""
        self._tell("moat_exchange_done", run_id=run_id, exchange=exchange)

    def _register(self, candidate: Candidate) -> None:
        try:
            module = candidate.load()
            if unmarked := self._unmarked(module):
                raise PluginError(f"{unmarked} is not marked @hookimpl")
            self._manager.register(module, candidate.title)
            self._manager.check_pending()  # a misspelt hook would otherwise never be called
            callers = self._manager.get_hookcallers(module)
            if not callers:
                raise PluginError("it implements no hook")
            self._hooks[candidate.title] = tuple(sorted(caller.name for caller in callers))
        except Exception as failure:  # noqa: BLE001 # whatever a stranger's module raises: disabled and reported
            self._disable(candidate, f"cannot be loaded: {_told(failure)}")

    def _unmarked(self, module: object) -> str:
        hooks = [name for name in vars(hookspecs) if name.startswith("moat_") and hasattr(module, name)]
        return next((name for name in hooks if self._manager.parse_hookimpl_opts(module, name) is None), "")

    def _disable(self, candidate: Candidate, text: str) -> None:
        if self._manager.has_plugin(candidate.title):
            self._manager.unregister(name=candidate.title)
        self._problems[candidate.title] = Problem(candidate, text)
        log.warning("plugin disabled", extra={"plugin": candidate.title, "problem": text})

    def _calls(self, hook: str) -> Iterator[tuple[Candidate, Callable[..., object]]]:
        """Yield each plugin that implements hook and a function that calls it with the arguments it asks for."""
        found = {impl.plugin_name: impl for impl in getattr(self._manager.hook, hook).get_hookimpls()}
        for name in sorted(found):
            yield self._candidates[name], partial(_call, found[name])

    def _tell(self, hook: str, **arguments: object) -> list[tuple[str, object]]:
        answers = []
        for plugin, call in self._calls(hook):
            try:
                answers.append((plugin.distribution, call(**arguments)))
            except Exception as failure:  # noqa: BLE001 # observers must not disturb what they watch
                log.warning(
                    "hook failed", extra={"plugin": plugin.title, "hook": hook, "error": type(failure).__name__}
                )
        return answers

    def _union(self, hook: str, kind: type[T], reserved: frozenset[str]) -> list[Offer[T]]:
        offers: dict[str, Offer[T]] = {}
        owners: dict[str, str] = {}
        for plugin, call in self._calls(hook):
            try:
                values = [_checked(value, kind, reserved) for value in call()]  # type: ignore[attr-defined] # any value
            except Exception as failure:  # noqa: BLE001 # whatever a hook raises: disabled and reported
                self._disable(plugin, f"{hook} failed: {_told(failure)}")
                continue
            for value in values:
                _claim(owners, f"the name {value.name!r}", value.name, plugin)
                offers[value.name] = Offer(plugin, value)
        return [offers[name] for name in sorted(offers)]


def how_to_have(name: str, known: Iterable[str]) -> str:
    """Return what to do about a grant or an agent that is not there: a name that is meant, or what to install."""
    import difflib

    if near := difflib.get_close_matches(name, known, n=1, cutoff=_NEAR):
        return f"did you mean {near[0]}?"
    return f"run: pip install moat-provider-{name}" if NAME.fullmatch(name) else "run: moat plugins"


def _call(implementation: pluggy.HookImpl, **arguments: object) -> object:
    return implementation.function(*(arguments[name] for name in implementation.argnames))


def _checked(value: object, kind: type[T], reserved: frozenset[str]) -> T:
    if not isinstance(value, kind):
        raise PluginError(f"it returned {type(value).__name__}, not a {kind.__name__}")
    name = getattr(value, "name", None)
    if not isinstance(name, str) or NAME.fullmatch(name) is None or name in reserved:
        raise PluginError(f"{type(value).__name__}.name is {name!r}, which cannot name it")
    if not isinstance(getattr(value, "summary", None), str):
        raise PluginError(f"{type(value).__name__} has no summary")
    return value


def _claim(owners: dict[str, str], what: str, name: str, plugin: Candidate) -> None:
    if name in owners:
        raise PluginError(
            f"{what} is claimed by {owners[name]} and by {plugin.distribution}",
            hint=f"run: pip uninstall {plugin.distribution}",
        )
    owners[name] = plugin.distribution


def _told(failure: Exception) -> str:
    """Return an exception as one line; ours already are."""
    text = failure.problem if isinstance(failure, MoatError) else f"{type(failure).__name__}: {failure}"
    return text.splitlines()[0] if text else type(failure).__name__
