"""Small plugins made by tests."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from moat.api import TokenProvider, hookimpl
from moat.plugins.discovery import Candidate


def a_provider(called: str) -> TokenProvider:
    """Return a provider of this name."""

    class Provider(TokenProvider):
        name, summary = called, f"the {called} service"
        hosts = (f"{called}.example.com",)
        question = "token"

    return Provider()


def a_plugin(name: str, /, distribution: str = "", **hooks: Callable[..., object]) -> Candidate:
    """Return a plugin that implements these hooks."""
    marked = {hook: hookimpl(function) for hook, function in hooks.items()}
    return raw_plugin(name, SimpleNamespace(**marked), distribution)


def raw_plugin(name: str, module: object, distribution: str = "") -> Candidate:
    """Return a plugin that is this object, or that raises it when imported."""

    def load() -> object:
        if isinstance(module, Exception):
            raise module
        return module

    return Candidate(name, distribution or f"moat-provider-{name}", "1.0", load)
