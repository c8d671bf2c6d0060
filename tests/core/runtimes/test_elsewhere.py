from __future__ import annotations

import pytest
from moat.runs.trust import DOOR_URL, java_options, proxy_variables
from moat.runtimes.elsewhere import with_proxy

ELSEWHERE = "http://moat:s3cr3t@10.9.0.1:4711"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy"])
def test_a_proxy_variable_of_the_plan_names_the_other_proxy(name: str) -> None:
    assert with_proxy(proxy_variables()[name], ELSEWHERE) == ELSEWHERE


def test_java_is_told_the_other_host_and_port_but_no_token() -> None:
    told = with_proxy(f"-Xmx1g {java_options()}", ELSEWHERE)

    assert told == f"-Xmx1g {java_options(ELSEWHERE)}"
    assert "10.9.0.1" in told
    assert "s3cr3t" not in told


@pytest.mark.parametrize("value", ["localhost,127.0.0.1", "/etc/moat/ca.pem", ""])
def test_other_values_stay_as_they_are(value: str) -> None:
    assert with_proxy(value, ELSEWHERE) == value


def test_a_url_below_the_door_keeps_its_path() -> None:
    assert with_proxy(f"{DOOR_URL}/_moat/x", ELSEWHERE) == f"{ELSEWHERE}/_moat/x"
