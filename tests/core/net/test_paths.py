from __future__ import annotations

import pytest
from moat.net.paths import decoded_path, path_pattern


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
