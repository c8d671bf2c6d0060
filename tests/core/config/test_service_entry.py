from __future__ import annotations

import pytest
from moat.api.errors import UsageError
from moat.api.services import Service
from moat.config.checkout import Checkout
from moat.config.project import Project, load_project

from core.config.test_project import PATH


def loaded(text: str) -> Project:
    return load_project(Checkout(PATH, text.encode())).project


def test_a_service_is_its_kind_alone_or_everything_about_it() -> None:
    project = loaded(
        "services:\n  db: postgres@16\n  cache: {kind: redis, port: 6380, args: [--maxmemory, 1g]}\n"
        "  search: {image: 'search/it:2', port: 9200, env: {discovery.type: single, N: 1}, ready: [true], user: 1000}\n"
    )

    assert project.services_asked() == (
        Service("db", "postgres:16", 5432, "postgres", user="postgres"),
        Service("cache", "redis:7", 6380, "redis", args=("--maxmemory", "1g"), user="redis"),
        Service("search", "search/it:2", 9200, "", {"discovery.type": "single", "N": "1"}, ("true",), user="1000"),
    )


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("db: postgers", "line 1: services.db: 'postgers' is no service", "services: {db: postgres@16}"),
        ("db: {image: x}", "services.db: write its kind", "services: {db: postgres@16}"),
        ("db: {port: 1}", "services.db: write its kind", "services: {db: postgres@16}"),
        ("db: {kind: redis, prt: 1}", "services.db.prt: this key is not known", "did you mean services.db.port?"),
        ("db: {kind: redis, port: 0}", "services.db.port", "port: 9200"),
        ("db: {kind: redis, image: '-x'}", "services.db.image: is not written", "image: opensearch"),
        ("db: {kind: redis, env: {'a=b': c}}", "services.db.env", "env: {POSTGRES_DB: shop}"),
        ("Db: redis", "services.Db", "services: {db: postgres@16}"),
        ("db: [redis]", "services.db: must be a mapping", "services: {db: postgres@16}"),
        ("a: redis, b: redis", "a and b both want port 6379", "edit"),
    ],
)
def test_a_service_that_makes_no_sense_is_told(text: str, problem: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(f"services: {{{text}}}")

    assert problem in caught.value.problem
    assert hint in caught.value.hint


def test_a_list_is_told_how_it_is_written() -> None:
    with pytest.raises(UsageError, match="services: must be a mapping") as caught:
        loaded("services: [postgres@16]")

    assert caught.value.hint == "write it as in services: {db: postgres@16}"
