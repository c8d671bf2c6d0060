"""Network rules: one line each, read from top to bottom, the first that fits decides. Text in, values out; pure.

    allow GET,POST api.github.com/repos/**
    deny * api.github.com                     no path: every path     no method, or *: every method
    allow *.example.com:8443                  *.host: hosts below, never the host itself    *: any host

Without a port, allow means 443, and 80 for http; deny means every port. GET covers HEAD. Paths are compared decoded,
with case; one that servers may read in two ways is denied as soon as a rule asks for it. See docs/reference.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import lru_cache

from moat.api.errors import UsageError
from moat.api.http import Authority
from moat.api.runs import NetworkRule, Verdict
from moat.net.hosts import HostPattern
from moat.net.paths import covers

_VERDICTS: dict[str, Verdict] = {"allow": "allow", "deny": "deny"}
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_ALONE = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # meant as methods, not as hosts
_HINT = "write: allow GET api.example.com/path/**"
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_.~:@+,=-]*)+")  # what stands in a rule, and in a shell's quotes, as it is


@dataclass(frozen=True, slots=True)
class Ask:
    """What a rule is asked about. path: decoded; None where servers may read it in more than one way."""

    authority: Authority
    method: str
    path: str | None


class AmbiguousPath(Exception):
    """A rule asks for the path, and nobody can say which it is."""


def parse_rule(text: str) -> NetworkRule:
    """Return the rule that a line spells. Raises UsageError, saying what to write instead."""
    verdict, *rest = text.split()[:4] or [""]
    if verdict not in _VERDICTS or not 1 <= len(rest) <= 2:
        raise UsageError(f"{text!r} is no network rule", hint=_HINT)
    host, slash, path = rest[-1].partition("/")
    if not host:
        raise UsageError(f"the rule {text!r} names no host", hint=f"{_HINT}, or */path for every host")
    if len(rest) == 1 and host in _ALONE:
        raise UsageError(
            f"the rule {text!r} names a method and no host", hint=f"write: {verdict} {host} *, for every host"
        )
    HostPattern.parse(host)
    return NetworkRule(_VERDICTS[verdict], _methods(rest[0] if len(rest) > 1 else "*", text), host,
                       _checked_path(slash + path, text))  # fmt: skip


def rule_text(rule: NetworkRule) -> str:
    """Return the line that spells rule."""
    return f"{rule.verdict} {','.join(rule.methods) or '*'} {rule.host}{rule.path}"


def verdict(rules: tuple[NetworkRule, ...], ask: Ask) -> NetworkRule | None:
    """Return the rule that decides, None when none fits. Raises AmbiguousPath."""
    for rule in rules:
        if _covers_host(rule, ask.authority) and _covers_method(rule, ask.method) and _covers_path(rule, ask.path):
            return rule
    return None


def host_verdict(rules: tuple[NetworkRule, ...], authority: Authority) -> NetworkRule | None:
    """Return the rule that decides before a request is known: one that lets some of them out, or keeps all in."""
    for rule in rules:
        is_whole = not rule.methods and not rule.path
        if _covers_host(rule, authority) and (is_whole or rule.verdict == "allow"):
            return rule
    return None


def rules_for(rules: tuple[NetworkRule, ...], authority: Authority) -> tuple[NetworkRule, ...]:
    """Return the rules that speak of authority, in their order."""
    return tuple(rule for rule in rules if _covers_host(rule, authority))


def allowing_line(ask: Ask) -> str:
    """Return the flag that lets exactly this out, as the user types it; a path that needs care is cut to its folder."""
    path = ask.path or "/"
    if _PLAIN_PATH.fullmatch(path) is None:
        plain = _PLAIN_PATH.match(path)
        path = f"{plain[0].rpartition('/')[0] if plain else ''}/**"
    return f"--rule {shlex.quote(f'allow {ask.method} {ask.authority}{path}')}"


def _methods(text: str, line: str) -> tuple[str, ...]:
    if text == "*":
        return ()
    methods = tuple(dict.fromkeys(text.upper().split(",")))
    if not all(_METHOD.fullmatch(method) for method in methods):
        raise UsageError(f"the rule {line!r} names no method in {text!r}", hint="write GET, GET,POST or *")
    return methods


def _checked_path(path: str, line: str) -> str:
    if bad := set("?#%;\\") & set(path):
        hint = "write the path decoded, without a query; * and ** stand for what varies"
        raise UsageError(f"the path of the rule {line!r} has {min(bad)!r}, which no path is compared with", hint=hint)
    if "//" in path or any(part in (".", "..") for part in path.split("/")):
        raise UsageError(f"the path of the rule {line!r} has empty or dot segments, and would never fit", hint=_HINT)
    return "" if path == "/**" else path


def _covers_host(rule: NetworkRule, authority: Authority) -> bool:
    pattern = _host_pattern(rule.host)
    if rule.verdict == "deny" and pattern.port is None:
        return pattern.covers_host(authority.host)
    return pattern.matches(authority)


def _covers_method(rule: NetworkRule, method: str) -> bool:
    if not rule.methods:
        return True
    asked = method.upper()  # RFC 9110 §9.1 knows upper case only; some servers are kinder
    return asked in rule.methods or (asked == "HEAD" and "GET" in rule.methods)


def _covers_path(rule: NetworkRule, path: str | None) -> bool:
    if not rule.path:
        return True
    if path is None or ";" in path:  # some servers cut `;…` off each segment (RFC 3986 §3.3), others do not
        raise AmbiguousPath
    fits = covers(rule.path, path)
    if fits is None:
        raise AmbiguousPath
    return fits


@lru_cache(maxsize=1024)
def _host_pattern(text: str) -> HostPattern:
    return HostPattern.parse(text)
