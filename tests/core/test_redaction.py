from __future__ import annotations

import hashlib
from dataclasses import asdict

from moat.redaction import BEGIN_BYTES, EARLY_BYTES, SecretMarks, encoded, marks_of

SHORT, LONG = "s3cr3t-value", "s3cr3t-" * 10


def test_a_mark_is_the_beginning_the_length_and_salted_digests() -> None:
    made = marks_of([SHORT, LONG, SHORT])

    salt = bytes.fromhex(made.salt)
    whole, of_long, early = (
        hashlib.sha256(salt + text.encode()).hexdigest() for text in (SHORT, LONG, LONG[:EARLY_BYTES])
    )
    begin = SHORT[:BEGIN_BYTES].encode().hex()
    assert made.marks == (f"{begin} {len(SHORT)} {whole} ", f"{begin} {len(LONG)} {of_long} {early}")
    assert "s3cr3t" not in str(asdict(made))
    assert marks_of([SHORT]).salt != made.salt
    assert repr(made) == "SecretMarks()"


def test_what_is_short_or_cannot_be_printed_has_no_mark() -> None:
    assert marks_of(["s3cr3t", "half a \ud800 character"]) == SecretMarks()
    assert (encoded("\udcff"), encoded("\ud800")) == (b"\xff", b"")
