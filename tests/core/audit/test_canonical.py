from __future__ import annotations

import pytest
from moat.audit.canonical import canonical, parsed, plain


def test_equal_values_have_equal_bytes_whatever_their_order() -> None:
    one = canonical({"b": [1, True, None], "a": {"z": "ü", "y": -5}})

    assert one == canonical({"a": {"y": -5, "z": "ü"}, "b": (1, True, None)})
    assert one == '{"a":{"y":-5,"z":"ü"},"b":[1,true,null]}'.encode()


def test_text_has_the_escapes_of_rfc_8785() -> None:
    assert canonical('\x00\x1f\b\t\n\f\r"\\/\x7f€') == b'"\\u0000\\u001f\\b\\t\\n\\f\\r\\"\\\\/\x7f\xe2\x82\xac"'


@pytest.mark.parametrize("value", [1.5, float("nan"), 2**53 + 1, {"ü": 1}, {1: 1}, "\ud800", b"x", {"a": object()}])
def test_what_has_no_one_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical(value)


def test_only_the_one_form_is_read() -> None:
    assert parsed('{"a":1,"b":"x"}') == {"a": 1, "b": "x"}
    nested = '{"a":' * 450 + "1" + "}" * 450  # json reads it, and writing it takes more of the stack
    for text in (nested, '{"a": 1}', '{"b":1,"a":2}', '{"a":1,"a":1}', '{"a":1.0}', "{", "[" * 100_000, '"\\u00fc"'):
        with pytest.raises(ValueError, match=r"."):
            parsed(text)


def test_any_text_can_be_written_down_and_is_bounded() -> None:
    assert plain("a\udcffb") == "a\\udcffb"
    assert plain("x" * 1000) == "x" * 512
    canonical(plain("\ud800" * 9))
