"""The company's HTTP proxy between us and an upstream: asks it for a tunnel. Sends it nothing of the request inside.

CONNECT host:port ─▶ 2xx ─▶ the tunnel is TLS to the upstream, verified as without a proxy
                     407 ─▶ 502, never passed on: the client would answer it with its own token
"""

from __future__ import annotations

import asyncio

from moat.api.http import Authority
from moat.net.route import ProxyRoute
from moat.proxy.http1 import Malformed, read_response, render_request, take_head
from moat.proxy.refusal import Refusal, late, unreachable
from moat.proxy.server.stream import PlainStream, StreamBroken

TUNNEL_S = 30.0  # the proxy resolves and connects for us: as long as both may take us, and some


async def open_tunnel(
    stream: PlainStream, route: ProxyRoute, authority: Authority, *, limit_s: float = TUNNEL_S
) -> None:
    """Turn a connection to the proxy into one to authority. Raises Refusal."""
    host = f"[{authority.host}]" if ":" in authority.host else authority.host
    target = f"{host}:{authority.port}"
    stream.write(render_request("CONNECT", target, [("Host", target), *route.fields]))
    try:
        async with asyncio.timeout(limit_s):
            status = await _status(stream)
    except TimeoutError:
        raise late(f"the proxy {route} made no tunnel to {authority} in {limit_s:g} s") from None
    except (StreamBroken, Malformed):
        raise unreachable(f"the proxy {route} broke off without a tunnel to {authority}", "proxy") from None
    if status == 407:
        raise wrong_credentials(route)
    if not 200 <= status < 300:
        raise unreachable(f"the proxy {route} refused a tunnel to {authority} ({status})", "proxy")


def wrong_credentials(route: ProxyRoute) -> Refusal:
    """Return the 502 for a proxy that answers 407."""
    return unreachable(f"the proxy {route} wants other credentials; see upstream.proxy in config.yaml", "proxy")


async def _status(stream: PlainStream) -> int:
    """Return the status of the final answer; its body, if any, is left."""
    for _ in range(8):  # interim answers, of which there should be none
        while (text := take_head(stream.buffer)) is None:
            if not await stream.more():
                raise StreamBroken("closed")
        response = read_response(text, "CONNECT")
        if response.head.status >= 200:
            return response.head.status
    raise Malformed("too many interim answers")
