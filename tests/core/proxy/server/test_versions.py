from __future__ import annotations

import pytest
from moat.api.endpoints import Upstream
from moat.api.http import Authority
from moat.proxy.server import versions as module
from moat.proxy.server.versions import HTTP1, HTTP2, KNOWN_S, OnlyHttp2, Versions

A, B, C = (Authority("https", f"{name}.example", 443) for name in "abc")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_known_of_an_upstream_before_it_was_dialled() -> None:
    versions = Versions()

    assert versions.only(A) is None
    versions.check(A)


def test_what_is_known_of_one_is_known_of_it_alone_and_for_a_while() -> None:
    clock = Clock()
    versions = Versions(clock)
    versions.remember(HTTP2, A)

    assert versions.only(A) == HTTP2
    assert versions.only(B) is None
    assert versions.only(A, Upstream("a.example", ca="CA")) is None  # another certificate may be another server
    with pytest.raises(OnlyHttp2) as refusal:
        versions.check(A)
    assert (refusal.value.status, refusal.value.kind) == (502, "http-version")
    clock.now += KNOWN_S
    assert versions.only(A) is None


def test_a_later_word_replaces_an_earlier_one() -> None:
    versions = Versions()
    versions.remember(HTTP2, A)
    versions.remember(HTTP1, A)

    assert versions.only(A) == HTTP1
    versions.check(A)


def test_as_many_as_allowed_are_remembered_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KNOWN", 2)
    versions = Versions()
    for each in (A, B, C):
        versions.remember(HTTP1, each)

    assert [versions.only(each) for each in (A, B, C)] == [None, HTTP1, HTTP1]


@pytest.mark.parametrize(
    ("alpn", "only"),
    [((), None), (("h2",), HTTP2), (("http/1.1",), HTTP1), (("h2", "http/1.1"), None), (("imap",), None)],
)
def test_what_an_endpoint_says_of_its_upstream_counts(alpn: tuple[str, ...], only: str | None) -> None:
    assert Versions().only(A, Upstream("a.example", alpn=alpn)) == only
