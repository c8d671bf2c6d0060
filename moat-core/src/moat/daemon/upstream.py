"""What the worker is told about this installation: its CA, and how services are reached. Read again for every run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from moat.api.errors import UsageError
from moat.config.settings import Settings
from moat.net.authority import AuthorityRefused
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
        return Configure(
            self.ca_certificate,
            self.ca_key,
            roots,
            dict(upstream.resolve),
            upstream.allow_cidrs,
            upstream.proxy,
            upstream.no_proxy,
        )

    def bare(self) -> Configure:
        """Return the configuration without settings, for a broken config.yaml: nothing private is dialled."""
        return Configure(self.ca_certificate, self.ca_key)
