"""The public plugin API. A provider imports from here and from nowhere else in moat.

Start with `hookspecs` (what a plugin can be), then `tokens` (the usual provider in a few lines). A name's module is
imported when the name is first used (PEP 562): who wants an error class pays for no other class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moat.api.agents import (
        AgentProvider,
        AgentRequest,
        AgentSetup,
        KeptFile,
        Session,
        Surroundings,
        began_at,
        instructions,
    )
    from moat.api.container import ContainerSetup, Limits, Mount
    from moat.api.credentials import (
        CapturedTokens,
        CommandResult,
        Credential,
        CredentialProvider,
        GrantOption,
        Host,
        HttpRequest,
        HttpResponse,
    )
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
        Upstream,
    )
    from moat.api.errors import GrantFailed, GrantRevoked, MoatError, SecretFailed
    from moat.api.hookspecs import hookimpl
    from moat.api.http import Authority, Headers, RequestHead, ResponseHead
    from moat.api.rules import (
        AddHeader,
        CaptureToken,
        Instead,
        Match,
        OnlyPlaceholder,
        OnlyTools,
        Price,
        ReadUsage,
        RemoveHeader,
        ReplaceToken,
        Rewriter,
        RewriteResponse,
        Rule,
        SetHeader,
        Sign,
    )
    from moat.api.runs import Contribution, ExchangeRecord, McpServer, NetworkPolicy, NetworkRule, RunInfo, RunSpec
    from moat.api.runtimes import DoorTicket, Execution, Readiness, Runtime, Sandbox, SandboxSpec, Stdio
    from moat.api.secrets import SecretSource
    from moat.api.signing import Signed, Unsignable, Unsigned
    from moat.api.tokens import TokenProvider, clean_token, rejection

__all__ = [
    "AddHeader",
    "AgentProvider",
    "AgentRequest",
    "AgentSetup",
    "Authority",
    "CaptureToken",
    "CapturedTokens",
    "CommandResult",
    "ContainerSetup",
    "Contribution",
    "Credential",
    "CredentialProvider",
    "DoorTicket",
    "Endpoint",
    "EndpointProvider",
    "ExchangeRecord",
    "Execution",
    "Forward",
    "GrantFailed",
    "GrantOption",
    "GrantRevoked",
    "Headers",
    "Host",
    "HttpRequest",
    "HttpResponse",
    "Instead",
    "KeptFile",
    "Limits",
    "Match",
    "McpServer",
    "MoatError",
    "Mount",
    "NetworkPolicy",
    "NetworkRule",
    "OnlyPlaceholder",
    "OnlyTools",
    "Price",
    "ProxyPath",
    "Question",
    "ReadUsage",
    "Readiness",
    "RemoveHeader",
    "ReplaceToken",
    "Reply",
    "RequestHead",
    "Respond",
    "ResponseHead",
    "RewriteResponse",
    "Rewriter",
    "Rule",
    "RunInfo",
    "RunSpec",
    "Runtime",
    "Sandbox",
    "SandboxSpec",
    "SecretFailed",
    "SecretSource",
    "Session",
    "SetHeader",
    "Sign",
    "Signed",
    "Stdio",
    "Stream",
    "Surroundings",
    "Tcp",
    "TokenProvider",
    "UnixPath",
    "Unsignable",
    "Unsigned",
    "Upstream",
    "began_at",
    "clean_token",
    "hookimpl",
    "instructions",
    "rejection",
]
_HOMES = {
    "agents": (
        "AgentProvider",
        "AgentRequest",
        "AgentSetup",
        "KeptFile",
        "Session",
        "Surroundings",
        "began_at",
        "instructions",
    ),
    "container": (
        "ContainerSetup",
        "Limits",
        "Mount",
    ),
    "credentials": (
        "CapturedTokens",
        "CommandResult",
        "Credential",
        "CredentialProvider",
        "GrantOption",
        "Host",
        "HttpRequest",
        "HttpResponse",
    ),
    "endpoints": (
        "Endpoint",
        "EndpointProvider",
        "Forward",
        "ProxyPath",
        "Question",
        "Reply",
        "Respond",
        "Stream",
        "Tcp",
        "UnixPath",
        "Upstream",
    ),
    "errors": (
        "GrantFailed",
        "GrantRevoked",
        "MoatError",
        "SecretFailed",
    ),
    "hookspecs": ("hookimpl",),
    "http": (
        "Authority",
        "Headers",
        "RequestHead",
        "ResponseHead",
    ),
    "rules": (
        "AddHeader",
        "CaptureToken",
        "Instead",
        "Match",
        "OnlyPlaceholder",
        "OnlyTools",
        "Price",
        "ReadUsage",
        "RemoveHeader",
        "ReplaceToken",
        "Rewriter",
        "RewriteResponse",
        "Rule",
        "SetHeader",
        "Sign",
    ),
    "runs": (
        "Contribution",
        "ExchangeRecord",
        "McpServer",
        "NetworkPolicy",
        "NetworkRule",
        "RunInfo",
        "RunSpec",
    ),
    "runtimes": (
        "DoorTicket",
        "Execution",
        "Readiness",
        "Runtime",
        "Sandbox",
        "SandboxSpec",
        "Stdio",
    ),
    "secrets": ("SecretSource",),
    "signing": (
        "Signed",
        "Unsignable",
        "Unsigned",
    ),
    "tokens": (
        "TokenProvider",
        "clean_token",
        "rejection",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would take every misspelt name for one of ours

    def __getattr__(name: str) -> object:
        """Import the module that name is from, or is; keep the name here. Raises AttributeError for any other."""
        import importlib

        if name not in _HOME_OF and name not in (*_HOMES, "hookspecs"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(f"{__name__}.{_HOME_OF.get(name, name)}")
        return globals().setdefault(name, getattr(module, name) if name in _HOME_OF else module)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
