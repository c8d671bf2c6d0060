from __future__ import annotations

import re

import pytest
from moat.api.errors import UsageError
from moat.api.services import Service
from moat.config.services import DOOR_PORTS, KINDS, checked_services, known_service, parse_service


@pytest.mark.parametrize(
    ("text", "name", "image", "port"),
    [
        ("postgres", "postgres", "postgres:17", 5432),
        ("postgres@16-alpine", "postgres", "postgres:16-alpine", 5432),
        ("db=postgres@16", "db", "postgres:16", 5432),
        ("my-sql=mysql", "my-sql", "mysql:8.4", 3306),
        ("mariadb@10.11", "mariadb", "mariadb:10.11", 3306),
        ("redis", "redis", "redis:7", 6379),
    ],
)
def test_a_known_service_is_read(text: str, name: str, image: str, port: int) -> None:
    found = parse_service(text)

    assert (found.name, found.image, found.port) == (name, image, port)
    assert found.user == KINDS[found.kind].user


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("postgre", "did you mean postgres?"),
        ("oracle", "known: postgres, mysql, mariadb, redis"),
        ("redis@", "'' is no version of redis"),
        ("redis@a/b", "is no version"),
        ("redis@7 --x", "is no version"),
        ("Db=redis", "no name"),
        ("=redis", "no name"),
        ("a b=redis", "no name"),
        ("", "is no service"),
    ],
)
def test_what_is_no_service_is_refused_with_what_to_write(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)) as caught:
        parse_service(text)

    assert caught.value.hint == "write postgres@16, or NAME=postgres@16"


def test_an_image_of_ones_own_has_its_version() -> None:
    assert known_service("postgres", "db", image="mine/pg:1", port=5433).image == "mine/pg:1"
    with pytest.raises(ValueError, match="leave out @16"):
        known_service("postgres@16", "db", image="mine/pg:1")


@pytest.mark.parametrize(
    ("services", "problem"),
    [
        *[((Service("web", "x", port),), f"web cannot be at port {port}") for port in DOOR_PORTS],
        ((Service("a", "x", 1), Service("b", "x", 1)), "a and b both want port 1"),
        ((Service("a-b", "x", 1), Service("a_b", "x", 2)), "variables of the same names"),
    ],
)
def test_services_that_cannot_stand_together_are_refused(services: tuple[Service, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        checked_services(services)


def test_what_stands_in_the_table_can_be_filled() -> None:
    words = {"password", "user", "database", "port"}
    for kind in KINDS.values():
        texts = (*kind.env.values(), *kind.with_user.values(), *kind.argv, *kind.ready, kind.url, *kind.given.values())
        assert {word for text in texts for word in re.findall(r"{(.*?)}", text)} <= words
        assert set(kind.names) <= words
        assert not any("{password}" in word for word in kind.ready)  # it is shown
