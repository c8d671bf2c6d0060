"""The public plugin API. A provider imports from here and from nowhere else in moat.

Start with `hookspecs` (what a plugin can be), then `tokens` (the usual provider in a few lines).
"""

from moat.api.container import ContainerSetup, Mount
from moat.api.credentials import (
    CommandResult,
    Credential,
    CredentialProvider,
    GrantOption,
    Host,
    HttpRequest,
    HttpResponse,
)
from moat.api.endpoints import Endpoint, EndpointProvider, Forward, ProxyPath, Upstream
from moat.api.errors import GrantFailed, MoatError
from moat.api.hookspecs import hookimpl
from moat.api.http import Authority, Headers, RequestHead, ResponseHead
from moat.api.rules import AddHeader, Match, RemoveHeader, ReplaceToken, Rule, SetHeader
from moat.api.runs import Contribution, ExchangeRecord, NetworkPolicy, NetworkRule, RunInfo, RunSpec
from moat.api.runtimes import DoorTicket, Readiness, Runtime, Sandbox, SandboxSpec, Stdio
from moat.api.tokens import TokenProvider, clean_token, rejection

__all__ = [
    "AddHeader",
    "Authority",
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
    "Headers",
    "Host",
    "HttpRequest",
    "HttpResponse",
    "Match",
    "MoatError",
    "Mount",
    "NetworkPolicy",
    "NetworkRule",
    "ProxyPath",
    "Readiness",
    "RemoveHeader",
    "ReplaceToken",
    "RequestHead",
    "ResponseHead",
    "Rule",
    "RunInfo",
    "RunSpec",
    "Runtime",
    "Sandbox",
    "SandboxSpec",
    "SetHeader",
    "Stdio",
    "TokenProvider",
    "Upstream",
    "clean_token",
    "hookimpl",
    "rejection",
]
