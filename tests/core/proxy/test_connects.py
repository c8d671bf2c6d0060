from __future__ import annotations

import pytest
from moat.api.http import Authority
from moat.proxy import connects as module
from moat.proxy.connects import MAX_CONNECTS, Connect, Connects
from moat.proxy.http1 import Request, read_request

API = Authority("https", "api.example.com", 443)
TEXT = "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443"


def a_request(number: int = 0) -> Request:
    return read_request(f"{TEXT}\r\nNumber: {number}")


def test_what_was_let_through_is_found_by_the_same_bytes_at_the_same_place() -> None:
    known, connect = Connects(), Connect(a_request(), "run_1", API)
    known.keep("", "", connect)

    assert known.find("", "", a_request()) is connect
    assert known.find("", "", a_request(1)) is None
    assert known.find("run_1", "", a_request()) is None
    assert known.find("", "run_2", a_request()) is None


def test_another_request_in_the_place_of_one_that_is_gone_is_not_taken_for_it() -> None:
    known, request = Connects(), a_request()
    known.keep("", "", Connect(request, "run_1", API))
    known._known["", "", id(request)] = Connect(a_request(1), "run_1", API)

    assert known.find("", "", request) is None


def test_all_of_it_is_forgotten_at_once_and_the_oldest_when_there_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTS", 2)
    known = Connects()
    for number in range(3):
        known.keep("", "", Connect(a_request(number), "run_1", API))

    assert [known.find("", "", a_request(number)) is not None for number in range(3)] == [False, True, True]
    known.clear()
    assert [known.find("", "", a_request(number)) for number in range(3)] == [None] * 3
    assert MAX_CONNECTS > 2
