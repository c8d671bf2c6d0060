from __future__ import annotations

import pytest
from moat.api.errors import UsageError
from moat.cli.open import chosen
from moat.cli.ports import Address
from support.installation import installation

WEB = Address("run_1", "calm-otter", "web", 3000, "http://web.calm-otter.localhost:8080/")
API = Address("run_1", "calm-otter", "api", 4000, "http://api.calm-otter.localhost:8080/")


@pytest.mark.parametrize(("port", "meant"), [("", [WEB, API]), ("web", [WEB]), ("4000", [API])])
def test_a_port_is_meant_by_its_name_or_its_number_inside(port: str, meant: list[Address]) -> None:
    assert chosen([WEB, API], "calm-otter", port) == meant


def test_what_is_not_there_is_told_with_what_to_type() -> None:
    with pytest.raises(UsageError, match="calm-otter has no port '5000', only web, api") as refused:
        chosen([WEB, API], "calm-otter", "5000")
    assert "moat route calm-otter web:3000 api:4000 other:5000" in refused.value.hint
    with pytest.raises(UsageError, match="calm-otter has no port that can be reached") as refused:
        chosen([], "calm-otter", "")
    assert refused.value.hint == "run: moat route calm-otter web:3000, or set ports in moat.yaml"


def test_where_no_daemon_runs_there_is_no_port_and_none_is_started() -> None:
    with installation() as made:
        done = made.run("open")
        assert done.returncode == 2
        assert b"error: no run has a port that can be reached" in done.stderr
        assert not (made.home / ".moat/daemon").exists()
        assert b"no run is called 'nobody'" in made.run("open", "nobody").stderr
