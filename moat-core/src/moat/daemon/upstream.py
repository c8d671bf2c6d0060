"""What the worker is told about this installation: its CA, and how services are reached. Read again for every run."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from moat.api.errors import UsageError
from moat.config.settings import Settings, split_address
from moat.net.authority import AuthorityRefused, canonical_host
from moat.net.route import ProxyRoute
from moat.proxy.messages import Configure


@dataclass(frozen=True, slots=True)
class Installation:
    """The CA, loaded once, and the settings, read when asked: an edited config.yaml holds from the next run on."""

    ca_certificate: str
    ca_key: str = field(repr=False)
    settings: Callable[[], Settings]

    def configuration(self) -> Configure:
        """Return what the worker needs. Raises UsageError for settings that make no sense: no run starts with them."""
        upstream = self.settings().upstream
        roots = ""
        if upstream.ca_bundle is not None:
            try:
                roots = upstream.ca_bundle.read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as failure:
                raise UsageError(
                    f"upstream.ca_bundle {upstream.ca_bundle} cannot be read: {failure}", hint="edit config.yaml"
                ) from failure
        try:
            if upstream.proxy:
                ProxyRoute.parse(upstream.proxy, upstream.no_proxy)
        except AuthorityRefused as refused:
            raise UsageError(f"upstream.proxy or upstream.no_proxy: {refused}", hint="edit config.yaml") from None
        _check_roots(roots)
        _check_pins(upstream.resolve)
        return Configure(
            self.ca_certificate,
            self.ca_key,
            roots,
            dict(upstream.resolve),
            upstream.allow_cidrs,
            upstream.proxy,
            upstream.no_proxy,
            upstream.first_byte_minutes * 60,
            upstream.upload_idle_minutes * 60,
        )

    def bare(self) -> Configure:
        """Return the configuration without settings, for a broken config.yaml: nothing private is dialled."""
        return Configure(self.ca_certificate, self.ca_key)


def _check_roots(roots: str) -> None:
    """Raise for a bundle that the worker could not take; it has nobody to tell."""
    try:
        if roots:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=roots)
    except (ssl.SSLError, ValueError):
        raise UsageError("upstream.ca_bundle holds no certificates in PEM", hint="edit config.yaml") from None


def _check_pins(resolve: Mapping[str, str]) -> None:
    """Raise for a host or an address that the worker could not take."""
    for host, place in resolve.items():
        try:
            canonical_host(host)
            canonical_host(split_address(place)[0])
        except ValueError as refused:
            raise UsageError(f"upstream.resolve.{host}: {refused}", hint="edit config.yaml") from None
