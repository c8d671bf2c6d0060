from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.api.services import Sidecar
from moat.redaction import EARLY_BYTES, marks_of
from moat.runs.blotting import Blotter, blotted, secrets_of
from moat.runs.plan import plan

from core.runs.plans import a_spec, some_facts

SECRETS = ("s3cr3t-one", "s3cr3t-one-and-more", "aaaaaaab")
TEXT = b"x s3cr3t-one y s3cr3t-one-and-more z aaaaaaaab s3cr3t-on"
CLEAN = b"x [redacted] y [redacted] z a[redacted] s3cr3t-on"


def kept_of(pieces: list[bytes]) -> bytes:
    blotter = Blotter(SECRETS)
    return b"".join(blotter.feed(piece) for piece in pieces) + blotter.finish()


@given(st.lists(st.integers(0, len(TEXT)), max_size=6))
def test_however_output_is_cut_it_loses_the_same_secrets(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(TEXT)]

    assert kept_of([TEXT[a:b] for a, b in pairwise(places)]) == CLEAN


def test_what_begins_no_secret_is_kept_at_once_and_the_rest_waits() -> None:
    blotter = Blotter(SECRETS)

    assert [blotter.feed(piece) for piece in (b"plain\n", b"s3c", b"ret\n")] == [b"plain\n", b"", b"s3cret\n"]


def test_without_secrets_or_with_short_ones_nothing_changes() -> None:
    assert Blotter(()).feed(TEXT) == TEXT
    assert Blotter(("s3cr3t",)).feed(TEXT) == TEXT


@pytest.mark.parametrize("size", range(1, len(TEXT) + 1))
def test_of_secrets_only_marks_need_be_known(size: int) -> None:
    blotter = Blotter(known=marks_of(SECRETS))

    kept = b"".join(blotter.feed(TEXT[at : at + size]) for at in range(0, len(TEXT), size)) + blotter.finish()

    assert kept == CLEAN


@pytest.mark.parametrize("at", range(80))
def test_a_long_secret_is_known_wherever_it_is_cut(at: int) -> None:
    secret = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9." + "abcdefghijklmnopqrstuvwxyz0123456789"
    text = f"<{secret}>".encode()
    blotter = Blotter(known=marks_of([secret]))

    assert blotter.feed(text[:at]) + blotter.feed(text[at:]) + blotter.finish() == b"<[redacted]>"


def test_what_only_begins_like_a_long_secret_waits_no_longer_than_to_be_told_from_it() -> None:
    blotter = Blotter(known=marks_of(["-----BEGIN PRIVATE KEY-----" + "k" * 1000]))

    assert blotter.feed(b"-----") == b""
    assert blotter.feed(b"-" * 75 + b"\n" + b"x" * EARLY_BYTES) == b"-" * 80 + b"\n" + b"x" * EARLY_BYTES


@pytest.mark.parametrize(
    ("secrets", "text", "clean"),
    [
        (("ghp_aaaaaaaa", "ghp_bbbbbbbbbbbb"), "ghp_bbbbbbbbbbbb ghp_aaaaaaaa", "[redacted] [redacted]"),
        (("ghp_aaaaaaaa", "ghp_bbbbbbbbbbbb"), "ghp_ghp_aaaaaaaa", "ghp_[redacted]"),
        (("xxghp_other", "ghp_aaaaaaaa"), "xxghp_aaaaaaaa", "xx[redacted]"),
        (("aaaabbbb", "aaabbbbcc"), "aaaabbbbcc", "[redacted]cc"),
        (("aaaabbbx", "aaabbbbcc"), "aaaabbbbcc", "a[redacted]"),
        (("p\udcff\udcfessword",), "a p\udcff\udcfessword", "a [redacted]"),
        (("p\ud800ssword",), "a p\ud800ssword", "a p\ud800ssword"),
        (("pässwörd",), "ein pässwörd", "ein [redacted]"),
        (("short",), "short", "short"),
    ],
    ids=["one beginning", "again", "inside the beginning", "over each other", "inside another", "no text",
         "half a character", "two bytes each", "short"],
)  # fmt: skip
def test_a_text_loses_the_secrets_that_stand_in_it(secrets: tuple[str, ...], text: str, clean: str) -> None:
    assert blotted(text, Blotter(secrets)) == clean
    assert blotted(text, Blotter(known=marks_of(secrets))) == clean


@pytest.mark.parametrize(
    ("name", "origin", "is_secret"),
    [
        ("DATABASE_URL", "moat.yaml, env://X", True),
        ("API_KEY", "-e", True),
        ("npm_token", "moat.yaml", True),
        ("API_KEY", "github", False),
        ("CI", "-e", False),
    ],
    ids=["of a reference", "of a telling name", "of the file", "a placeholder of a grant", "any other"],
)
def test_a_run_knows_which_of_its_variables_are_secret(name: str, origin: str, is_secret: bool) -> None:
    made = plan(a_spec(), some_facts())
    sandbox = replace(made.sandbox, env={name: "s3cr3t-value"})

    found = secrets_of(replace(made, sandbox=sandbox, origins={name: origin}))

    assert found == (("s3cr3t-value",) if is_secret else ())


def test_the_passwords_of_its_services_are_secret_too() -> None:
    made = plan(a_spec(), some_facts())
    sandbox = replace(made.sandbox, services=(Sidecar("db", "postgres:16", 5432, secrets=("s3cr3t-password",)),))

    assert "s3cr3t-password" in secrets_of(replace(made, sandbox=sandbox))
