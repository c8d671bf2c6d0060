from __future__ import annotations

import pytest
from moat.api.errors import UsageError
from moat.api.runs import HostPort
from moat.api.services import Service
from moat.config.services import KINDS, known_service
from moat.runs.services import arranged

PASSWORDS = {"db": "s3cr3t-db", "cache": "s3cr3t-cache", "other": "s3cr3t-other", "search": "s3cr3t-none"}


def test_a_database_is_told_under_its_name_and_under_that_of_its_kind() -> None:
    found = arranged((known_service("postgres@16", "db"),), PASSWORDS)

    (sidecar,) = found.sidecars
    assert (sidecar.image, sidecar.user, sidecar.argv) == ("postgres:16", "postgres", ())
    assert sidecar.env == {
        "POSTGRES_USER": "postgres", "POSTGRES_PASSWORD": "s3cr3t-db", "POSTGRES_DB": "app", "PGPORT": "5432",
    }  # fmt: skip
    assert sidecar.ready == ("pg_isready", "-q", "-h", "127.0.0.1", "-p", "5432", "-U", "postgres", "-d", "app")
    url = "postgresql://postgres:s3cr3t-db@127.0.0.1:5432/app"
    assert found.env["DB_URL"] == found.env["POSTGRES_URL"] == found.env["DATABASE_URL"] == url
    assert {name: found.env[name] for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE")} == {
        "PGHOST": "127.0.0.1", "PGPORT": "5432", "PGUSER": "postgres", "PGPASSWORD": "s3cr3t-db", "PGDATABASE": "app",
    }  # fmt: skip
    assert set(found.owners.values()) == {"db"}
    assert found.owners.keys() == found.env.keys() == found.shown.keys()


def test_what_may_be_shown_holds_no_password() -> None:
    asked = known_service("mysql", "other", env={"MYSQL_USER": "u", "MYSQL_PASSWORD": "s3cr3t given"})
    found = arranged((known_service("redis", "cache"), asked), PASSWORDS)

    assert "s3cr3t" not in repr(found.shown)
    assert found.shown["CACHE_URL"] == "redis://default:(generated)@127.0.0.1:6379/0"
    assert found.shown["DATABASE_URL"] == "mysql://u:(as given)@127.0.0.1:3306/app"
    assert found.env["DATABASE_URL"] == "mysql://u:s3cr3t%20given@127.0.0.1:3306/app"
    assert "s3cr3t" not in repr(found)


def test_the_first_of_a_kind_has_its_names_and_no_other_has_them() -> None:
    first, second = known_service("postgres", "other", port=5433), known_service("postgres", "postgres")
    found = arranged((first, second), {**PASSWORDS, "postgres": "s3cr3t-second"})

    assert found.env["DATABASE_URL"] == found.env["OTHER_URL"]
    assert found.env["PGPORT"] == "5433"
    assert found.env["POSTGRES_PORT"] == "5432"  # what its own name says goes before
    assert found.owners["POSTGRES_PORT"] == "postgres"
    assert found.sidecars[0].env["PGPORT"] == "5433"


def test_the_variables_of_a_service_have_the_last_say() -> None:
    env = {"MARIADB_USER": "me", "MARIADB_DATABASE": "shop", "TZ": "UTC"}
    found = arranged((known_service("mariadb", "db", env=env, args=("--skip-name-resolve",)),), PASSWORDS)

    (sidecar,) = found.sidecars
    assert sidecar.env == {"MARIADB_ROOT_PASSWORD": "s3cr3t-db", "MARIADB_PASSWORD": "s3cr3t-db", **env}
    assert sidecar.argv == ("--port=3306", "--skip-name-resolve")
    assert found.env["DB_URL"] == "mysql://me:s3cr3t-db@127.0.0.1:3306/shop"
    usual = arranged((known_service("mariadb", "db"),), PASSWORDS).sidecars[0]
    assert usual.env == {"MARIADB_ROOT_PASSWORD": "s3cr3t-db", "MARIADB_DATABASE": "app"}


def test_programs_for_mysql_find_mariadb_too() -> None:
    found = arranged((known_service("mariadb", "db"),), PASSWORDS)

    assert {name: found.env[name] for name in found.env if name.startswith("MYSQL_")} == {
        "MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": "3306", "MYSQL_TCP_PORT": "3306", "MYSQL_USER": "root",
        "MYSQL_PASSWORD": "s3cr3t-db", "MYSQL_PWD": "s3cr3t-db", "MYSQL_DATABASE": "app",
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_no_password_is_an_argument(kind: str) -> None:
    (sidecar,) = arranged((known_service(kind, "db"),), PASSWORDS).sidecars

    assert "s3cr3t" not in repr((sidecar.argv, sidecar.ready))
    assert "s3cr3t-db" in sidecar.env.values()


def test_of_a_service_without_a_kind_it_is_said_where_it_is() -> None:
    asked = Service("search", "search:2", 9200, env={"a.b": "c"}, ready=("true",), args=("serve",), user="9")
    found = arranged((asked,), PASSWORDS)

    (sidecar,) = found.sidecars
    assert (sidecar.env, sidecar.argv, sidecar.ready, sidecar.user) == ({"a.b": "c"}, ("serve",), ("true",), "9")
    assert found.env == {"SEARCH_HOST": "127.0.0.1", "SEARCH_PORT": "9200"}
    assert sidecar.secrets == ()


def test_a_port_that_leads_to_this_machine_is_no_services() -> None:
    with pytest.raises(UsageError, match="db wants port 5432, which leads to this machine"):
        arranged((known_service("postgres", "db"),), PASSWORDS, (HostPort(5432),))
