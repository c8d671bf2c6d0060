"""From services that were asked for to what is started beside the command, and what the command is told of it. Pure.

Service + a password of the run's own ─┬─▶ Sidecar: image, variables, arguments, when it is ready
                                       └─▶ variables of the command: NAME_URL, DATABASE_URL, PGHOST, …
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeAlias
from urllib.parse import quote

from moat.api.errors import UsageError
from moat.api.runs import HostPort
from moat.api.services import HIDDEN, Service, Sidecar
from moat.config.services import KINDS
from moat.runs.plan import Beside

HOST = "127.0.0.1"
Quoted: TypeAlias = Callable[[str], str]

DATABASE = "app"  # what is there from the beginning, unless the service's variables say otherwise


def arranged(services: Sequence[Service], passwords: Mapping[str, str], opened: Sequence[HostPort] = ()) -> Beside:
    """Return what is started and told. passwords: by the service's name. opened: ports that lead to this machine.

    Raises UsageError when a service wants a port that is taken.
    """
    taken = {each.port for each in opened}
    for service in services:
        if service.port in taken:
            problem = f"the service {service.name} wants port {service.port}, which leads to this machine"
            raise UsageError(problem, hint="give the service another port, or take out the one of host_ports")
    words = {service.name: _words(service, passwords[service.name]) for service in services}
    veiled = {name: {**each, "password": _veil(each, passwords[name])} for name, each in words.items()}
    env, owners = _told(services, words, partial(quote, safe=""))
    shown, _ = _told(services, veiled, str)
    sidecars = [_sidecar(service, words[service.name], passwords[service.name]) for service in services]
    return Beside(tuple(sidecars), env, owners, shown)


def _veil(words: Mapping[str, str], generated: str) -> str:
    return HIDDEN if words["password"] == generated else "(as given)"


def _told(
    services: Sequence[Service], words: Mapping[str, Mapping[str, str]], quoted: Quoted
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the variables of the command, and whose each is. quoted: how words stand in a URL.

    The first of a kind has the names of its kind, but no name of another's.
    """
    env: dict[str, str] = {}
    owners: dict[str, str] = {}
    for tell in (_told_by_name, _told_by_kind):
        for service in services:
            for name, value in tell(service, words[service.name], quoted):
                if name not in env:
                    env[name], owners[name] = value, service.name
    return env, owners


def _words(service: Service, password: str) -> dict[str, str]:
    """Return what stands for the words in braces; the service's own variables have the last say."""
    kind = KINDS.get(service.kind)
    usual = {"password": password, "user": kind.account if kind else "", "database": DATABASE}
    names = kind.names if kind else {}
    chosen = {word: service.env[name] for word, name in names.items() if name in service.env}
    return {**usual, **chosen, "port": str(service.port)}


def _sidecar(service: Service, words: Mapping[str, str], generated: str) -> Sidecar:
    kind = KINDS.get(service.kind)
    if kind is None:
        return Sidecar(
            service.name, service.image, service.port, service.env, service.args, service.ready, service.user
        )
    of_kind = {**kind.env, **(kind.with_user if words["user"] != kind.account else {})}
    return Sidecar(
        name=service.name,
        image=service.image,
        port=service.port,
        env={name: _filled(text, words) for name, text in of_kind.items()} | dict(service.env),
        argv=(*(_filled(text, words) for text in kind.argv), *service.args),
        ready=service.ready or tuple(_filled(text, words) for text in kind.ready),
        user=service.user,
        secrets=(generated,),
    )


def _told_by_name(service: Service, words: Mapping[str, str], quoted: Quoted) -> Iterator[tuple[str, str]]:
    """Yield the variables of the command that begin with a service's name."""
    yield from ((f"{service.prefix}_{name}", value) for name, value in _facts(service, words, quoted).items())


def _told_by_kind(service: Service, words: Mapping[str, str], quoted: Quoted) -> Iterator[tuple[str, str]]:
    """Yield those that clients of its kind read."""
    kind = KINDS.get(service.kind)
    if kind is None:
        return
    facts = _facts(service, words, quoted)
    yield from ((f"{service.kind.upper()}_{name}", value) for name, value in facts.items())
    yield from ((name, words[word]) for word, name in kind.names.items())
    yield from ((name, _filled(text, words)) for name, text in kind.given.items())
    if kind.is_database:
        yield "DATABASE_URL", facts["URL"]


def _facts(service: Service, words: Mapping[str, str], quoted: Quoted) -> dict[str, str]:
    kind, facts = KINDS.get(service.kind), {"HOST": HOST, "PORT": words["port"]}
    if kind is None:
        return facts
    url = _filled(kind.url, {word: quoted(value) for word, value in words.items()})
    account = {"USER": words["user"], "DATABASE": words["database"]} if kind.is_database else {}
    return {**facts, "URL": url, **account, "PASSWORD": words["password"]}


def _filled(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"{([a-z]+)}", lambda found: words[found[1]], text)
