from __future__ import annotations

import pytest
from moat.net.paths import covers, decoded_path, path_pattern, readings


@pytest.mark.parametrize(
    ("path", "decoded"), [("/", "/"), ("/a%20b/%C3%A9", "/a b/é"), ("/a;v=1/b", "/a;v=1/b"), ("/a.b/..c", "/a.b/..c")]
)
def test_a_path_that_reads_one_way_is_decoded(path: str, decoded: str) -> None:
    assert decoded_path(path) == decoded


@pytest.mark.parametrize(
    "path",
    ["/a/../b", "/./a", "/a//b", "/a%2fb", "/a\\b", "/a%5Cb", "/%2e%2e/b", "/%252e%252e/b", "/..;x/b", "/a%00", "/%ff"],
)
def test_a_path_that_servers_read_differently_is_none(path: str) -> None:
    assert decoded_path(path) is None


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("/admin/**", ("/admin", "/admin/", "/admin/x/y"), ("/administrator", "/x/admin")),
        ("/*/info", ("/a/info",), ("/info", "//info", "/a/b/info")),
        ("/v*/x", ("/v1/x",), ("/v/x", "/v/1/x")),
        ("/a.b", ("/a.b",), ("/aXb", "/a.b/", "/A.b")),
        ("/**/end", ("/end", "/a/b/end"), ("/ends",)),
    ],
)
def test_a_pattern_covers_what_it_says(pattern: str, fits: tuple[str, ...], does_not: tuple[str, ...]) -> None:
    assert all(path_pattern(pattern).fullmatch(path) for path in fits)
    assert not any(path_pattern(pattern).fullmatch(path) for path in does_not)


@pytest.mark.parametrize(
    ("decoded", "read"),
    [
        ("/a b/100%", ("/a b/100%",)),
        ("/%61dmin", ("/%61dmin", "/admin")),
        ("/%2561dmin", ("/%2561dmin", "/%61dmin", "/admin")),
        ("/admin?x", ("/admin?x", "/admin")),
        ("/a;x/b;y", ("/a;x/b;y", "/a/b")),
        ("/%3fx#y", ("/%3fx#y", "/?x#y", "/%3fx", "/")),
    ],
)
def test_a_path_has_every_reading_that_a_server_may_have(decoded: str, read: tuple[str, ...]) -> None:
    assert readings(decoded) == read


@pytest.mark.parametrize(
    "path", ["/%25252e%25252e/x", "/a%25252fb", "/a%255cb", "/%25252525252541", "/%u0061dmin", "/%25ff"]
)
def test_a_path_that_is_doubtful_once_it_is_decoded_again_is_none(path: str) -> None:
    assert decoded_path(path) is None


def test_a_pattern_covers_what_every_reading_fits_and_is_uncertain_of_what_one_does() -> None:
    assert covers("/admin/**", "/admin/%41") is True
    assert covers("/admin/**", "/public/%41") is False
    assert covers("/admin/**", "/%61dmin/x") is None
    assert covers("/admin", "/admin?x") is None
    assert covers("/x*1", "/x%41") is None
