"""Tells clients of another proxy than the door's, in runs that have no door. Pure: the plan writes for runs that do."""

from __future__ import annotations

from urllib.parse import urlsplit

DOOR_PROXY = "http://127.0.0.1:19080"
_DOOR = urlsplit(DOOR_PROXY)


def with_proxy(value: str, proxy_url: str) -> str:
    """Return a variable's value with proxy_url for the door, as a URL and as Java's two properties.

    Java can be told no token, so it gets 407 there: nothing leaves without the run's rules.
    """
    proxy = urlsplit(proxy_url)
    value = value.replace(DOOR_PROXY, proxy_url)
    value = value.replace(f"proxyHost={_DOOR.hostname}", f"proxyHost={proxy.hostname}")
    return value.replace(f"proxyPort={_DOOR.port}", f"proxyPort={proxy.port}")
