"""The public plugin API. A provider imports from here and from nowhere else in moat.

Start with `hookspecs` (what a plugin can be), then `tokens` (the usual provider in a few lines).
"""

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
from moat.api.errors import GrantFailed, GrantRevoked, MoatError
from moat.api.hookspecs import hookimpl
from moat.api.http import Authority, Headers, RequestHead, ResponseHead
from moat.api.rules import (
    AddHeader,
    CaptureToken,
    Instead,
    Match,
    OnlyPlaceholder,
    OnlyTools,
    RemoveHeader,
    ReplaceToken,
    Rewriter,
    RewriteResponse,
    Rule,
    SetHeader,
)
from moat.api.runs import Contribution, ExchangeRecord, NetworkPolicy, NetworkRule, RunInfo, RunSpec
from moat.api.runtimes import DoorTicket, Readiness, Runtime, Sandbox, SandboxSpec, Stdio
from moat.api.tokens import TokenProvider, clean_token, rejection

__all__ = [
    "AddHeader",
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
    "Forward",
    "GrantFailed",
    "GrantOption",
    "GrantRevoked",
    "Headers",
    "Host",
    "HttpRequest",
    "HttpResponse",
    "Instead",
    "Limits",
    "Match",
    "MoatError",
    "Mount",
    "NetworkPolicy",
    "NetworkRule",
    "OnlyPlaceholder",
    "OnlyTools",
    "ProxyPath",
    "Question",
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
    "SetHeader",
    "Stdio",
    "Stream",
    "Tcp",
    "TokenProvider",
    "UnixPath",
    "Upstream",
    "clean_token",
    "hookimpl",
    "rejection",
]
