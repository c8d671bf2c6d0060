from __future__ import annotations

import pytest
from moat.api.errors import MoatError
from moat.api.rules import Match, Sign
from moat.api.signing import Signed, Unsignable


@pytest.mark.parametrize("target", ["", "x", "https://a/", "/a b", "/a\r\nX: y", "/a#b", "/ü"])
def test_a_target_that_is_none_is_refused(target: str) -> None:
    with pytest.raises(MoatError, match="target"):
        Signed(target)


@pytest.mark.parametrize("pair", [("Host", "a"), ("content-length", "1"), ("X Y", "1"), ("X", "a\r\nb"), ("X", "ü")])
def test_a_header_that_frames_or_breaks_out_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(MoatError):
        Signed("/", (pair,))


def test_what_was_signed_does_not_show_in_a_repr() -> None:
    assert "s3cr3t" not in repr(Signed("/", (("Authorization", "s3cr3t"),), secrets=("s3cr3t",)))


def test_a_run_is_told_400_or_403() -> None:
    assert [Unsignable("no", status=status).status for status in (400, 403, 200)] == [400, 403, 400]


def test_a_signature_is_for_a_grant() -> None:
    with pytest.raises(MoatError, match="for a grant"):
        Sign(Match("*.example.com"), "")
