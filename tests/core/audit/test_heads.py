from __future__ import annotations

from dataclasses import replace

import pytest
from moat.audit.chain import INSTALLATION, Tip
from moat.audit.heads import Head, Signed, is_signed_by, public_key_of, read, sign

from core.audit.making import AT, KEY, LIVE, OTHER_SEED, RUN, SEED

HEAD = Head(INSTALLATION, Tip(7, "a" * 64), 3, AT, {LIVE: Tip(2, "b" * 64)})


def test_a_head_is_read_as_it_was_signed_and_proven_by_its_key_only() -> None:
    signed = sign(SEED, HEAD)

    assert read(signed) == HEAD
    assert is_signed_by(KEY, signed)
    assert not is_signed_by(public_key_of(OTHER_SEED), signed)
    assert not is_signed_by(KEY, replace(signed, statement=signed.statement.replace('"seq":7', '"seq":6')))
    assert not is_signed_by(KEY, replace(signed, signature="00" * 64))
    assert not is_signed_by(KEY, replace(signed, signature="none"))
    assert not is_signed_by("", signed)


def test_only_the_installations_head_names_the_live_runs() -> None:
    assert '"live"' not in sign(SEED, Head(RUN, Tip(1, "a" * 64), 1, AT)).statement
    assert '"live":{}' in sign(SEED, Head(INSTALLATION, Tip(1, "a" * 64), 1, AT)).statement


@pytest.mark.parametrize("statement", ["", "{}", "[]", '{"v":2}', '{"chain":"x","v":1}', '{"v": 1}'])
def test_what_is_no_head_is_a_value_error(statement: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(Signed(RUN, statement, ""))
