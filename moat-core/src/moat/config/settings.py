"""The installation's settings, `$MOAT_HOME/config.yaml`. Read only; a mistake is an error, never silently skipped.

    image: debian:bookworm-slim
    runtime: bubblewrap
    workspace:
      exclude: [.env]
    network:
      policy: strict
      rules: ["allow GET api.github.com/repos/**", "deny * api.github.com"]
    upstream:
      ca_bundle: /etc/company/roots.pem
      resolve: {api.internal: "10.0.0.5:8443"}
      allow_cidrs: [10.0.0.0/8]
      proxy: http://proxy.corp.example:3128
      no_proxy: ["*.corp.example"]
      first_byte_minutes: 5
      upload_idle_minutes: 5
    daemon:
      idle_minutes: 5
    routing:
      port: 8080
    metrics:
      port: 9464
    trace:
      bodies: true

YAML and pydantic are imported only when the file exists: most installations have none.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from moat.api.errors import UsageError
from moat.api.light import dataclass
from moat.paths import Home

if TYPE_CHECKING:
    from pydantic import ValidationError

DEFAULT_IMAGE = "debian:bookworm-slim"

_DAY_MINUTES = 1440
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_DIRECT = re.compile(r"\*|(?:\*\.)?(?:\[[0-9A-Fa-f:.]+\]|[^\s:/@*\[\]]+)(?::[0-9]{1,5})?")
_PLACE = re.compile(r"(?:\[([^]]*)\]|([^:]*))(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """How services are reached, by the proxy and by `moat grant` alike.

    ca_bundle: PEM file with roots trusted besides the system's. resolve: host → "address" or "address:port", an IPv6
    address with a port in brackets. allow_cidrs: ranges that may be dialled although they are not public. proxy: the
    company's, http://[user:password@]host:port, "" for none. no_proxy: hosts that are reached without it.
    first_byte_minutes: how long a service may take for the first byte of an answer. upload_idle_minutes: how long it
    may take nothing of a request's body, and say nothing.
    """

    ca_bundle: Path | None = None
    resolve: Mapping[str, str] = field(default_factory=dict)
    allow_cidrs: tuple[str, ...] = ()
    proxy: str = field(default="", repr=False)
    no_proxy: tuple[str, ...] = ()
    first_byte_minutes: float = 5.0
    upload_idle_minutes: float = 5.0

    def pinned(self, host: str) -> tuple[str, int | None] | None:
        """Return the address, and the port if one is set, that host is pinned to; None when it is not."""
        place = self.resolve.get(host.lower())
        return split_address(place) if place is not None else None


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """What may leave, where the command line does not say. rules: as `moat.net.rules` reads them, after --rule."""

    policy: Literal["permissive", "strict"] = "permissive"
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkspaceSettings:
    """What of any workspace no run is shown. exclude: patterns, as `config/excludes.py` reads them."""

    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.exclude:
            from moat.config.excludes import parse_exclude

            for text in self.exclude:
                parse_exclude(text)


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """How the daemon lives. idle_minutes: it leaves after so long without runs; 0 is never."""

    idle_minutes: float = 5.0


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """Where ports of runs are reached from outside. port: on loopback."""

    port: int = 8080

    def __post_init__(self) -> None:
        if not 0 < self.port < 65_536:
            raise ValueError(f"{self.port} is not a port")


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """What traces hold. bodies: headers and the beginnings of bodies too, without secrets."""

    bodies: bool = False


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where metrics are read beside the daemon's socket. port: on loopback; 0 is nowhere."""

    port: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65_536:
            raise ValueError(f"{self.port} is not a port")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything config.yaml may say. runtime: empty means automatic."""

    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    image: str = DEFAULT_IMAGE
    runtime: str = ""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    workspace: WorkspaceSettings = field(default_factory=WorkspaceSettings)
    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    trace: TraceSettings = field(default_factory=TraceSettings)


def load_settings(home: Home) -> Settings:
    """Return the settings, the defaults where there is no file.

    Raises UsageError, naming the file and the key, for what cannot be read, is unknown or makes no sense.
    """
    try:
        text = home.config.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as failure:
        why = os.strerror(failure.errno or 0) if isinstance(failure, OSError) else "it is not UTF-8"
        raise UsageError(f"{home.config} cannot be read: {why}", hint=f"run: ls -l {home.config}") from None
    return _checked(home.config, _parsed(home.config, text))


def split_address(place: str) -> tuple[str, int | None]:
    """Return the address and the port of "addr", "addr:port", "v6" or "[v6]:port".

    Raises ValueError for names, which would have to be resolved again, and for ports out of range.
    """
    import ipaddress

    match = _PLACE.fullmatch(place)
    host = (match[1] or match[2]) if match else place  # else it can only be a bare IPv6 address
    port = match[3] if match else None
    number = int(port) if port else None
    if number is not None and not 0 < number < 65_536:
        raise ValueError(f"{port} is not a port")
    return str(ipaddress.ip_address(host)), number


def _parsed(path: Path, text: str) -> object:
    import yaml

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise UsageError(f"{path} is not YAML{where}", hint=f"edit {path}") from None
    except _UNREADABLE as failure:  # PyYAML's constructors, of dates that do not exist and their like
        raise UsageError(f"{path} holds a value that is none: {failure}"[:300], hint=f"edit {path}") from None


def _checked(path: Path, values: object) -> Settings:
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(values, dict):
        raise UsageError(f"{path} must be a mapping of settings", hint=f"edit {path}")
    _refuse_unknown(path, "", values, Settings)
    sections = {"network": NetworkSettings, "upstream": UpstreamSettings, "daemon": DaemonSettings,
                "routing": RoutingSettings, "workspace": WorkspaceSettings, "metrics": MetricsSettings,
                "trace": TraceSettings}  # fmt: skip
    for name, kind in sections.items():
        if isinstance(section := values.get(name), dict):
            _refuse_unknown(path, f"{name}.", section, kind)
    try:
        settings = TypeAdapter(Settings).validate_python(values)
    except ValidationError as failure:
        raise _explained(path, failure) from None
    if not 0 <= settings.daemon.idle_minutes < math.inf:
        raise UsageError(f"{path}: daemon.idle_minutes is no time", hint="write minutes, 0 for never")
    for name in ("first_byte_minutes", "upload_idle_minutes"):
        if not 0 < getattr(settings.upstream, name) <= _DAY_MINUTES:
            raise UsageError(f"{path}: upstream.{name} is no time", hint="write minutes, 1440 at most")
    return replace(settings, upstream=_checked_upstream(path, settings.upstream))


def _refuse_unknown(path: Path, prefix: str, values: Mapping[object, object], kind: type) -> None:
    known = [entry.name for entry in fields(kind)]
    for key in values:
        if key not in known:
            import difflib

            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(known)}"
            raise UsageError(f"{path}: unknown setting {prefix}{key}", hint=hint)


def _explained(path: Path, failure: ValidationError) -> UsageError:
    first = failure.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    return UsageError(f"{path}: {key}: {first['msg'][:1].lower()}{first['msg'][1:]}", hint=f"edit {path}")


def _checked_upstream(path: Path, upstream: UpstreamSettings) -> UpstreamSettings:
    """Return upstream with an absolute bundle path and lower-case hosts; relative paths start at the settings file."""
    import ipaddress

    bundle = upstream.ca_bundle
    if bundle is not None:
        with contextlib.suppress(RuntimeError):  # no such user: then there is no such file either
            bundle = bundle.expanduser()
        bundle = path.parent / bundle
        if not bundle.is_file():
            raise UsageError(f"{path}: upstream.ca_bundle: there is no file {bundle}", hint=f"edit {path}")
    for host, place in upstream.resolve.items():
        _must_parse(path, f"upstream.resolve.{host}", place, split_address, 'an address, as in "10.0.0.5:8443"')
    for network in upstream.allow_cidrs:
        _must_parse(
            path, "upstream.allow_cidrs", network, ipaddress.ip_network, "a range of addresses, as in 10.0.0.0/8"
        )
    if upstream.proxy:
        _check_proxy(path, upstream.proxy)
    for pattern in upstream.no_proxy:
        if _DIRECT.fullmatch(pattern) is None:
            problem = f"{path}: upstream.no_proxy: {pattern!r} is not a host, *.host, either with :port, or *"
            raise UsageError(problem, hint=f"edit {path}")
    resolve = {host.lower(): place for host, place in upstream.resolve.items()}
    return replace(upstream, ca_bundle=bundle, resolve=resolve)


def _must_parse(path: Path, key: str, text: str, parse: Callable[[str], object], expected: str) -> None:
    try:
        parse(text)
    except ValueError:
        raise UsageError(f"{path}: {key}: {text!r} is not {expected}", hint=f"edit {path}") from None


def _check_proxy(path: Path, url: str) -> None:
    """Raise for what is no proxy. The error never quotes url, which may hold a password."""
    try:
        parts = urlsplit(url)
        is_proxy = parts.scheme == "http" and bool(parts.hostname) and bool(parts.port)
    except ValueError:
        is_proxy = False
    if not is_proxy or parts.path not in ("", "/") or parts.query or parts.fragment:
        hint = "write it as http://[user:password@]host:port, with @ : / in user and password percent-encoded"
        raise UsageError(f"{path}: upstream.proxy is not the address of an HTTP proxy", hint=hint)
