from __future__ import annotations

from pathlib import Path

from moat.cli.ports import Address, addresses_of, ports_as_json
from moat.paths import Home, private_folder
from moat.routing.table import Route, Table

RUN, OTHER = "run_0123456789ab", "run_ba9876543210"


def test_ports_of_the_runs_that_are_meant_are_found_with_where_they_are(tmp_path: Path) -> None:
    home = Home(private_folder(tmp_path / "home"))
    table = Table(home.daemon / "routes.json")
    table.put(Route("calm-otter", RUN, {"web": 3000, "db": 5432}, {"web": 13000}))
    table.put(Route("keen-lark", OTHER, {"web": 3000}))

    found = addresses_of(home, {RUN}, 8080)

    url = "http://{}.calm-otter.localhost:8080/".format
    assert found == [
        Address(RUN, "calm-otter", "db", 5432, url("db")),
        Address(RUN, "calm-otter", "web", 3000, url("web"), 13000),
    ]
    assert ports_as_json(found, RUN)[1] == {
        "name": "web", "port": 3000, "url": url("web"), "published": "127.0.0.1:13000",
    }  # fmt: skip
    assert ports_as_json(found, RUN)[0]["published"] is None
    assert ports_as_json(found, OTHER) == []


def test_where_nothing_is_routed_there_are_none(tmp_path: Path) -> None:
    home = Home(private_folder(tmp_path / "home"))

    assert addresses_of(home, {RUN}, 8080) == []
    assert addresses_of(home, {RUN}, 0) == []
