from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy.renderings import MIN_SECRET_BYTES, needles, secrets_in

SECRET = 's3cr3t/with+every="sort"&of<sign>'


def forms(secret: str) -> set[bytes]:
    return {form for needle in needles(secret) for form in needle.forms}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(SECRET, id="as it is"),
        pytest.param(quote(SECRET, safe=""), id="percent, upper case"),
        pytest.param(quote(SECRET, safe="").replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d")
                     .replace("%3C", "%3c").replace("%3E", "%3e"), id="percent, lower case"),
        pytest.param(quote(SECRET), id="percent, slash kept"),
        pytest.param(quote_plus(SECRET), id="form"),
        pytest.param(json.dumps(SECRET)[1:-1], id="JSON"),
        pytest.param(json.dumps(SECRET)[1:-1].replace("/", "\\/"), id="JSON as PHP writes it"),
        pytest.param(json.dumps(SECRET)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
                     id="JSON as Go writes it"),
        pytest.param(quote(quote(SECRET, safe=""), safe=""), id="percent, twice"),
        pytest.param(re.sub("%..", lambda found: found[0].lower(), quote(SECRET, safe="")).replace("%", "%25"),
                     id="percent in lower case, twice"),
        pytest.param(html.escape(SECRET).replace("/", "&#x2F;").replace("=", "&#x3D;"), id="HTML as Mustache does"),
        pytest.param(html.escape(SECRET).replace("&quot;", "&#34;").replace("+", "&#43;"), id="HTML as Go does"),
    ],
)  # fmt: skip
def test_a_secret_is_known_in_every_usual_writing(text: str) -> None:
    assert text.encode() in forms(SECRET)


@given(st.binary(max_size=7), st.text("abcXYZ019_-/+.", min_size=MIN_SECRET_BYTES, max_size=60), st.binary(max_size=7))
def test_base64_of_whatever_holds_the_secret_is_known(before: bytes, secret: str, after: bytes) -> None:
    whole = before + secret.encode() + after

    for encoded in (base64.b64encode(whole), base64.urlsafe_b64encode(whole)):
        found = max((form for form in forms(secret) if form in encoded), key=len, default=b"")
        assert len(found) >= len(secret) * 8 // 6 - 3


@pytest.mark.parametrize("before", [b"", b"u", b"us"], ids=["alignment 0", "alignment 1", "alignment 2"])
@pytest.mark.parametrize(
    "write", [bytes.decode, lambda text: text.decode().translate(str.maketrans("+/", "-_")), quote],
    ids=["the usual alphabet", "the one for URLs", "percent-encoded"],
)  # fmt: skip
def test_base64_with_all_of_its_characters_is_known_at_every_alignment(
    write: Callable[[bytes], str], before: bytes
) -> None:
    secret = "s3cr3t>>>???~~~ooo"  # its base64 has + and / wherever it begins
    encoded = base64.b64encode(before + secret.encode() + b"!")
    known = max((form for form in forms(secret) if form in write(encoded).encode()), key=len, default=b"")

    assert {b"+", b"/"} <= {bytes((each,)) for each in encoded}
    assert len(known) >= len(write(encoded)) - 8


def test_every_form_holds_its_anchor() -> None:
    assert all(needle.anchor in form for needle in needles(SECRET) for form in needle.forms)
    assert all(needle.anchor in form for needle in needles("a-b-c-d-e-f") for form in needle.forms)


def test_short_secrets_have_no_forms() -> None:
    assert needles("1234567") == ()
    assert secrets_in("Bearer 1234567") == ()


def test_the_token_and_not_its_scheme_is_the_secret() -> None:
    assert secrets_in("Bearer s3cr3t-token") == ("s3cr3t-token",)
    assert secrets_in("s3cr3t-token") == ("s3cr3t-token",)


def test_the_password_of_basic_is_a_secret_besides_the_pair() -> None:
    pair = base64.b64encode(b"x-access-token:s3cr3t-token").decode()

    assert secrets_in(f"Basic {pair}") == (pair, "s3cr3t-token")


@pytest.mark.parametrize("password", ["", "x", "api_token", "x-oauth-basic"])
def test_the_user_of_basic_is_the_secret_where_it_is_the_key(password: str) -> None:
    pair = base64.b64encode(f"s3cr3t-key:{password}".encode()).decode()

    assert secrets_in(f"Basic {pair}") == (pair, "s3cr3t-key")


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("session=s3cr3t-one", ("s3cr3t-one",)),
        ('a=s3cr3t-one; b="s3cr3t two"; lang=en', ("s3cr3t-one", "s3cr3t two")),
        ("Token token=s3cr3t-one", ("s3cr3t-one",)),
        ('Digest id="s3cr3t-one",key=s3cr3t+two==', ("s3cr3t-one", "s3cr3t+two==")),
    ],
)
def test_what_a_field_names_is_a_secret_also_without_its_name(value: str, parts: tuple[str, ...]) -> None:
    assert set(parts) <= set(secrets_in(value))
    assert "lang" not in secrets_in(value)


def test_padding_names_nothing() -> None:
    assert secrets_in("Bearer s3cr3t/token==") == ("s3cr3t/token==",)


def test_a_basic_value_that_is_none_is_taken_as_it_is() -> None:
    assert secrets_in("Basic s3cr3t!!") == ("s3cr3t!!",)


def test_nothing_shows_a_secret() -> None:
    assert "s3cr3t" not in repr(needles(SECRET))
