from __future__ import annotations

from moat.api.services import Service, Sidecar, hidden

SIDECAR = Sidecar(
    "db", "postgres:17", 5432, {"POSTGRES_PASSWORD": "s3cr3t"}, ("--pw", "s3cr3t"), secrets=("s3cr3t", "")
)


def test_nothing_secret_of_a_service_is_shown() -> None:
    asked = Service("db", "postgres:17", 5432, env={"A": "s3cr3t"}, args=("s3cr3t",))

    assert "s3cr3t" not in repr(SIDECAR) + repr(asked)
    assert hidden("as s3cr3t is", (SIDECAR,)) == "as (generated) is"
    assert hidden("as it is", ()) == "as it is"


def test_variables_of_a_service_begin_with_its_name() -> None:
    assert Service("my-db_2", "x", 1).prefix == "MY_DB_2"
