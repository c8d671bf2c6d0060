from __future__ import annotations

import pytest
from moat.config.checkout import LIMIT_BYTES
from moat.config.plain_yaml import LIMIT_DEPTH, NotPlain, read_plain


def test_scalars_stay_the_text_that_stands_there() -> None:
    plain = read_plain(b"a: no\nb: 1.10\nc: 017\nd: 2001-99-99\ne: '~'\nf: [yes, 0x10]\n")

    assert plain.value == {"a": "no", "b": "1.10", "c": "017", "d": "2001-99-99", "e": "~", "f": ["yes", "0x10"]}


def test_nothing_is_nothing() -> None:
    assert read_plain(b"").value is None
    assert read_plain(b"# words\n").value is None
    assert read_plain(b"a:\nb: ~\nc: null\n").value == {"a": None, "b": None, "c": None}


def test_every_place_has_its_line() -> None:
    lines = read_plain(b"a: 1\nb:\n  - x\n  - c: y\n").lines

    assert (lines["a",], lines["b",], lines["b", 0], lines["b", 1, "c"]) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        pytest.param(b"a: &x [1]\n", "anchors", 1, id="an anchor"),
        pytest.param(b"a: 1\nb: *a\n", "anchors", 2, id="an alias"),
        pytest.param(b"a: !!python/object/apply:os.system [id]\n", "tags", 1, id="a tag that would run something"),
        pytest.param(b"a: !!int 1\n", "tags", 1, id="a tag that would not"),
        pytest.param(b"a: 1\na: 2\n", "stands twice", 2, id="a key twice"),
        pytest.param(b"? [a]\n: 1\n", "must be text", 1, id="a list as key"),
        pytest.param(b"--- 1\n--- 2\n", "one document", 2, id="two documents"),
        pytest.param(b"a: [", "expected", 1, id="half of it"),
        pytest.param(b"a: \x00\n", "no text", 0, id="a control character"),
        pytest.param(b'a: "\\uD800"\n', "no text", 1, id="half of a character"),
        pytest.param(b'a: "\\U00110000"\n', "no text", 0, id="an escape that is no character"),
        pytest.param(b"\xff", "UTF-8", 0, id="another encoding"),
        pytest.param(b"#" * (LIMIT_BYTES + 1), "longer", 0, id="too long"),
    ],
)
def test_whatever_else_yaml_can_do_is_refused(text: bytes, problem: str, line: int) -> None:
    with pytest.raises(NotPlain, match=problem) as refusal:
        read_plain(text)

    assert refusal.value.line == line


def test_depth_is_bounded_however_it_is_written() -> None:
    assert read_plain(b"[" * LIMIT_DEPTH + b"]" * LIMIT_DEPTH).value is not None
    for deep in (b"[" * 60_000, b"{a: " * 15_000, b"- " * 30_000, b"? " * 30_000):
        with pytest.raises(NotPlain):
            read_plain(deep)
