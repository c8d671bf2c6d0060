from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from moat.api.errors import StoreCorrupt
from moat.store.cipher import fingerprint, new_key, read_header, seal, unseal

KEY = b"k" * 32
SECRET = b"ghp_s3cr3t"


def sealed(name: str = "github", **facts: object) -> bytes:
    return seal(KEY, name, facts or {"source": "gh"}, SECRET)


def changed(data: bytes, **parts: Any) -> bytes:
    envelope = json.loads(data)
    for path, value in parts.items():
        target, _, key = path.rpartition("__")
        (envelope[target] if target else envelope)[key] = value
    return json.dumps(envelope).encode()


def test_what_was_sealed_is_unsealed_with_its_header() -> None:
    header, secret = unseal(KEY, "github", sealed(source="gh"))

    assert secret == SECRET
    assert header == {"source": "gh", "version": 1, "name": "github"}


def test_the_header_is_readable_without_the_key() -> None:
    assert read_header("github", sealed(source="gh"))["source"] == "gh"


def test_the_secret_is_not_in_the_file() -> None:
    data = sealed()

    assert SECRET not in data
    assert base64.b64encode(SECRET) not in data


def test_sealing_twice_gives_different_files() -> None:
    assert sealed() != sealed()


@pytest.mark.parametrize(
    "part", ["header__source", "header__expires_at", "header__extra"], ids=["changed", "emptied", "added"]
)
def test_a_changed_header_is_noticed(part: str) -> None:
    data = changed(sealed(source="gh", expires_at="2030-01-01"), **{part: ""})

    with pytest.raises(StoreCorrupt, match="changed"):
        unseal(KEY, "github", data)


def test_a_file_moved_to_another_name_is_refused() -> None:
    with pytest.raises(StoreCorrupt, match="made for 'github'"):
        unseal(KEY, "aws", sealed("github"))


def test_a_file_renamed_inside_and_out_is_refused() -> None:
    with pytest.raises(StoreCorrupt):
        unseal(KEY, "aws", changed(sealed("github"), header__name="aws"))


def test_another_version_is_refused_and_named() -> None:
    with pytest.raises(StoreCorrupt, match="format is 2"):
        read_header("github", changed(sealed(), header__version=2))


def test_another_key_cannot_open_it() -> None:
    with pytest.raises(StoreCorrupt):
        unseal(b"x" * 32, "github", sealed())


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"header": 1, "nonce": "", "sealed": ""}', b"[" * 100_000],
    ids=["empty", "no parts", "a list", "null", "no text", "wrong types", "very deep"],
)
def test_what_is_no_envelope_is_one_error(data: bytes) -> None:
    with pytest.raises(StoreCorrupt, match="not a credential file"):
        unseal(KEY, "github", data)


@pytest.mark.parametrize("part", ["nonce", "sealed"])
@pytest.mark.parametrize("text", ["", "AAAA", "*"], ids=["empty", "short", "not base64"])
def test_spoilt_parts_are_one_error_that_shows_nothing(part: str, text: str) -> None:
    with pytest.raises(StoreCorrupt) as caught:
        unseal(KEY, "github", changed(sealed(), **{part: text}))

    assert "s3cr3t" not in str(caught.value)
    assert caught.value.hint == "run: moat grant github"


def test_a_fingerprint_tells_keys_apart_and_is_not_the_key() -> None:
    key = new_key()

    assert len(key) == 32
    assert fingerprint(key) == fingerprint(key) != fingerprint(new_key())
    assert fingerprint(key) not in key.hex()
