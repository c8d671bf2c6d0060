"""From what a registration brought itself to the one list of rules, and to endpoints. Pure but for `load`.

credentials, headers, placeholders, transformers ──▶ rules            mcp_servers ──▶ endpoints at /mcp/NAME
host_ports ──▶ endpoints at host.moat.internal:PORT
aws_config ──▶ a credential as `moat grant aws` makes it ──▶ the provider's rules and endpoints
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

from moat.api.credentials import Credential
from moat.api.endpoints import Endpoint, Forward, OnHost, ProxyPath, Tcp, Upstream
from moat.api.errors import MoatError, UsageError
from moat.api.rules import (
    AddHeader,
    Instead,
    Match,
    OnlyTools,
    RemoveHeader,
    ReplaceToken,
    RewriteResponse,
    Rule,
    SetHeader,
)
from moat.api.runs import HOST_NAME
from moat.daemon.extras import AwsConfig, Extras, HostPort, McpServer, ResponseTransformer
from moat.ids import checked_name
from moat.net.authority import AuthorityRefused, from_host

Load = Callable[[str], Credential]

# What a subscription's token may not ask for, and its client cannot do without.
_WORKAROUND = {"/api/oauth/profile": '{"id":"","email":"","name":""}', "/api/oauth/usage": '{"usage":{}}'}
_AGAIN = "register the run again, with auth_token"
MAX_EXTRAS = 1_000
_PORT = re.compile(r":[0-9]+$")


def check(extras: Extras) -> None:
    """Raise UsageError for what is not understood: it is never left out without a word."""
    if extras.are_values_lost:
        raise UsageError("the values this run was registered with went with the daemon before this one", hint=_AGAIN)
    lists = (extras.credentials, extras.extra_headers, extras.remove_headers, extras.token_substitutions)
    if (
        sum(map(len, lists)) + len(extras.response_transformers) + len(extras.mcp_servers) + len(extras.host_ports)
        > MAX_EXTRAS
    ):
        raise UsageError(f"more than {MAX_EXTRAS} credentials, headers and servers are too many for one run")
    names = [checked_name(server.name, "server") for server in extras.mcp_servers]
    if len(set(names)) < len(names):
        raise UsageError("two MCP servers have one name", hint="name each differently")


def rules_of(extras: Extras) -> list[Rule]:
    """Return the rules that extras spell. Raises UsageError."""
    try:
        return list(_rules(extras))
    except MoatError as refused:
        raise UsageError(refused.problem, hint=refused.hint) from None


def mcp_endpoints(servers: Sequence[McpServer], load: Load) -> list[Endpoint]:
    """Return the relays of MCP servers. Raises UsageError, and what load raises."""
    return [_mcp_endpoint(server, load) for server in servers]


def host_endpoints(ports: Sequence[HostPort]) -> list[Endpoint]:
    """Return the places that lead to ports of this machine: each at HOST_NAME, and at its own name if it has one.

    Raises UsageError for a port or a name that is none.
    """
    try:
        found = {(host, each.port): OnHost(each.port) for each in ports for host in (HOST_NAME, each.host)}
        return [Endpoint(Tcp(host, port, tls=False), how) for (host, port), how in found.items()]
    except MoatError as refused:
        raise UsageError(f"host_ports: {refused.problem}", hint="write a port, or NAME=PORT") from None


def aws_credential(config: AwsConfig) -> Credential:
    """Return what the provider of AWS would have stored for a role."""
    metadata = {
        "region": config.region,
        "session_duration_s": str(config.session_duration) if config.session_duration else "",
        "external_id": config.external_id,
        "profile": config.profile,
        "session_policy": "of the registration" if config.session_policy else "",
    }
    kept = {name: value for name, value in metadata.items() if value}
    secret = f"{config.role_arn} {config.session_policy}" if config.session_policy else config.role_arn
    return Credential("aws", secret, "the registration", kept)


def _rules(extras: Extras) -> Iterator[Rule]:
    for each in extras.credentials:
        yield SetHeader(_match(each.host), each.header, each.value, each.grant)
    for extra in extras.extra_headers:
        yield AddHeader(_match(extra.host), extra.header_name, extra.value)
    for unwanted in extras.remove_headers:
        yield RemoveHeader(_match(unwanted.host), unwanted.header_name)
    for token in extras.token_substitutions:
        yield ReplaceToken(
            _match(token.host), token.placeholder, token.real_token, where=("header", "path", "query", "body")
        )
    for transformer in extras.response_transformers:
        yield from _transformed(transformer)


def _transformed(transformer: ResponseTransformer) -> Iterator[Rule]:
    match transformer.kind:
        case "response-scrub":  # every answer is, of all that was spent
            _match(transformer.host)
        case "oauth-endpoint-workaround":
            for path, body in _WORKAROUND.items():
                yield RewriteResponse(_match(transformer.host, path), Instead(200, body), statuses=(403,), kinds=())
        case kind:
            hint = "known: oauth-endpoint-workaround, response-scrub"
            raise UsageError(f"{kind!r} is no response transformer", hint=hint)


def _match(host: str, *paths: str) -> Match:
    try:
        from_host(host, "https")
    except AuthorityRefused as refused:
        raise UsageError(f"{host!r}: {refused}", hint="write a host, or host:port") from None
    return Match(host, paths=paths, any_port=_PORT.search(host) is None)


def _mcp_endpoint(server: McpServer, load: Load) -> Endpoint:
    host, path = _address(server)
    rules: list[Rule] = []
    if server.grant:
        secret = load(checked_name(server.grant, "grant")).secret
        value = f"Bearer {secret}" if server.header.lower() == "authorization" else secret
        rules.append(SetHeader(_match(host), server.header, value, server.grant))
    if server.tools:
        rules.append(OnlyTools(_match(host), server.tools))
    try:
        where, upstream = ProxyPath(f"/mcp/{server.name}/"), Upstream(host, path=path)
    except MoatError as refused:
        raise UsageError(refused.problem, hint="write https://host/path, in plain characters") from None
    return Endpoint(where, Forward(upstream, tuple(rules)), server.grant)


def _address(server: McpServer) -> tuple[str, str]:
    """Return host[:port] and path of a server. Raises UsageError."""
    try:
        url = urlsplit(server.url)
        port = f":{url.port}" if url.port else ""
    except ValueError:
        raise _no_address(server) from None
    if url.scheme != "https" or not url.hostname or url.username or url.query or url.fragment:
        raise _no_address(server)
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    _match(host + port)
    return host + port, url.path


def _no_address(server: McpServer) -> UsageError:
    hint = "write https://host/path, without user, query and fragment"
    return UsageError(f"the URL of the MCP server {server.name} is not understood", hint=hint)
