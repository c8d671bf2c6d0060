from __future__ import annotations

import pytest
from moat.api.http import Authority, Headers, RequestHead

HEADERS = Headers.of([("Host", "a"), ("X-One", "1"), ("x-one", "2"), ("Accept", "*/*")])


@pytest.mark.parametrize(
    ("authority", "text"),
    [
        (Authority("https", "example.com", 443), "example.com"),
        (Authority("http", "example.com", 80), "example.com"),
        (Authority("https", "example.com", 80), "example.com:80"),
        (Authority("https", "::1", 443), "[::1]"),
        (Authority("https", "::1", 8443), "[::1]:8443"),
    ],
)
def test_an_authority_is_written_as_in_a_host_header(authority: Authority, text: str) -> None:
    assert str(authority) == text


def test_names_compare_without_case_and_values_keep_their_order() -> None:
    assert HEADERS.get("X-ONE") == "1"
    assert HEADERS.get_all("x-One") == ("1", "2")
    assert HEADERS.get("absent") is None
    assert HEADERS.get_all("absent") == ()
    assert "hOST" in HEADERS
    assert "absent" not in HEADERS


def test_setting_leaves_exactly_one_where_the_first_stood() -> None:
    assert list(HEADERS.with_set("X-ONE", "3")) == [("Host", "a"), ("X-ONE", "3"), ("Accept", "*/*")]


def test_setting_an_absent_field_adds_it_at_the_end() -> None:
    assert list(HEADERS.with_set("New", "n"))[-1] == ("New", "n")


def test_adding_keeps_what_is_there() -> None:
    assert HEADERS.with_added("X-One", "3").get_all("x-one") == ("1", "2", "3")


def test_removing_takes_every_repetition() -> None:
    assert list(HEADERS.without("x-one", "HOST", "absent")) == [("Accept", "*/*")]


def test_changing_makes_a_copy() -> None:
    before = list(HEADERS)

    HEADERS.with_set("X-One", "3").without("Host")

    assert list(HEADERS) == before


def test_the_path_is_the_target_without_its_query() -> None:
    head = RequestHead("GET", Authority("https", "a", 443), "/user?page=2?x")

    assert head.path == "/user"
    assert head.with_headers(HEADERS).headers is HEADERS
