from __future__ import annotations

import base64
import re
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moat.proxy.scrub import PROMPT_BYTES, PromptStream, Scrub, Spent, mask

SECRET = "ghp_s3cr3tTokenOfSomeLength"
ODD = "s3cr3t/+odd=one:x"
SCRUB = Scrub([SECRET, ODD])
FRAGMENTS = [
    SECRET,
    SECRET[:9],
    SECRET[3:],
    ODD,
    ODD[:5],
    quote(ODD, safe=""),
    quote(ODD, safe="").lower(),
    ODD.replace("/", "\\/"),
    base64.b64encode(f"user:{SECRET}".encode()).decode(),
    base64.urlsafe_b64encode(f"x:{ODD}".encode()).decode(),
    "g",
    "gh",
    "s3",
    '{"a": 1}',
    "\n\n",
    "\0\xff",
]
bodies = st.lists(st.one_of(st.sampled_from(FRAGMENTS).map(lambda text: text.encode("latin-1")), st.binary(max_size=9)))


def scrubbed(body: bytes, cuts: list[int], scrub: Scrub = SCRUB) -> bytes:
    stream, out = scrub.stream(), b""
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        out += stream.feed(body[start:end])
    return out + stream.finish()


@given(bodies.map(b"".join), st.lists(st.integers(0, 300), max_size=12))
def test_however_a_stream_is_cut_the_output_is_the_same(body: bytes, cuts: list[int]) -> None:
    assert scrubbed(body, cuts) == scrubbed(body, [])


@given(bodies.map(b"".join), st.lists(st.integers(0, 300), max_size=12))
def test_nothing_but_secrets_changes_and_no_secret_is_left(body: bytes, cuts: list[int]) -> None:
    out = scrubbed(body, cuts)
    secret = {at for start, end in SCRUB.find(body) for at in range(start, end)}

    assert len(out) == len(body)
    assert all(out[at] == body[at] for at in range(len(body)) if at not in secret)
    assert not SCRUB.find(out)


@given(st.text("ab", max_size=40), st.lists(st.integers(0, 40), max_size=12))
def test_secrets_that_overlap_themselves_and_each_other_are_cut_alike(body: str, cuts: list[int]) -> None:
    scrub = Scrub(["abababab", "babababa", "aaaabaaa", "aabaaabbab"])

    assert scrubbed(body.encode(), cuts, scrub) == scrubbed(body.encode(), [], scrub)


def test_what_ends_like_no_secret_leaves_at_once() -> None:
    stream = SCRUB.stream()

    assert stream.feed(b"data: {}\n\n") == b"data: {}\n\n"
    assert stream.feed(b'{"token": "') == b'{"token": "'


def test_only_what_may_begin_a_secret_waits_and_no_longer_than_needed() -> None:
    stream = SCRUB.stream()

    assert stream.feed(b"data: ghp_s3cr3t") == b"data: "
    assert stream.feed(b"ive\n\n") == b"ghp_s3cr3tive\n\n"


def test_what_waits_at_the_end_was_no_secret() -> None:
    stream = SCRUB.stream()
    stream.feed(b"ghp_s3cr3tTok")

    assert stream.finish() == b"ghp_s3cr3tTok"


def test_a_secret_in_pieces_is_replaced_by_as_many_bytes() -> None:
    out = scrubbed(b"token=" + SECRET.encode() + b"!", list(range(40)))

    assert out == b"token=" + mask(len(SECRET)) + b"!"
    assert re.fullmatch(rb"token=\[moat:redacted\*+\]!", out)


@pytest.mark.parametrize(("length", "text"), [(8, b"[moat:re"), (15, b"[moat:redacted]"), (17, b"[moat:redacted**]")])
def test_the_mask_has_the_length_of_what_it_hides(length: int, text: bytes) -> None:
    assert mask(length) == text


def test_header_fields_lose_secrets_and_keep_all_else() -> None:
    pairs = [("Location", f"https://x/?token={SECRET}&a=1"), ("Set-Cookie", "a=b"), ("X", "y"), ("X", ODD)]

    assert SCRUB.headers(pairs) == [
        ("Location", f"https://x/?token={mask(len(SECRET)).decode()}&a=1"),
        ("Set-Cookie", "a=b"),
        ("X", "y"),
        ("X", mask(len(ODD)).decode()),
    ]


def test_a_field_whose_name_is_a_secret_is_dropped() -> None:
    assert SCRUB.headers([("a", "b"), (SECRET, "c")]) == [("a", "b")]


def test_a_run_that_spent_nothing_has_nothing_to_look_for() -> None:
    assert not Scrub(())
    assert not Spent().scrub
    assert Scrub(()).stream().feed(b"anything") == b"anything"


def test_what_was_spent_is_remembered_and_asked_for_once() -> None:
    spent = Spent()
    spent.add([SECRET])
    first = spent.scrub
    spent.add([SECRET])

    assert spent.scrub is first
    spent.add([ODD])
    assert spent.scrub.find(f"{SECRET} {ODD}".encode()) == [(0, len(SECRET)), (len(SECRET) + 1, len(SECRET) + 18)]


def test_a_run_that_spends_ever_new_secrets_remembers_the_latest() -> None:
    spent = Spent()
    for number in range(70):
        spent.add([f"s3cr3t-number-{number:04}"])

    assert not spent.scrub.find(b"s3cr3t-number-0000")
    assert spent.scrub.find(b"s3cr3t-number-0069")


def test_no_number_of_renewals_makes_a_run_forget_what_its_rules_still_have() -> None:
    spent = Spent()
    spent.expect([SECRET])
    spent.add([SECRET, "s3cr3t-of-before"])
    for number in range(70):
        spent.add([f"s3cr3t-number-{number:04}"])

    assert spent.scrub.find(SECRET.encode())
    assert not spent.scrub.find(b"s3cr3t-of-before")
    assert spent.scrub.find(b"s3cr3t-number-0069")


def test_where_all_are_still_in_force_the_latest_is_known_all_the_same() -> None:
    spent = Spent()
    spent.expect(f"s3cr3t-number-{number:04}" for number in range(70))
    spent.add([f"s3cr3t-number-{number:04}" for number in range(64)])
    spent.add(["s3cr3t-of-now"])

    assert spent.scrub.find(b"s3cr3t-of-now")


def test_a_stream_looks_for_more_from_the_moment_it_is_told_to() -> None:
    stream = Scrub([SECRET]).stream()
    held = stream.feed(SECRET[:5].encode())
    stream.look_for(Scrub([SECRET, "s3cr3t-of-later"]))

    assert held == b""
    assert stream.feed(f"{SECRET[5:]} s3cr3t-of-later".encode()) == mask(len(SECRET)) + b" " + mask(15)


def test_records_lose_what_was_spent_and_what_may_yet_be() -> None:
    spent = Spent()
    spent.add([SECRET])
    spent.expect(["s3cr3t-to-come"])

    assert spent.unsaid(f"/bot{SECRET}/s3cr3t-to-come") == f"/bot{mask(len(SECRET)).decode()}/{mask(14).decode()}"
    assert spent.scrub.text("s3cr3t-to-come") == "s3cr3t-to-come"
    spent.add(["s3cr3t-of-today"])
    assert spent.unsaid("/s3cr3t-of-today") == f"/{mask(15).decode()}"
    spent.expect(())
    assert spent.unsaid("/s3cr3t-to-come") == "/s3cr3t-to-come"


def test_what_is_taken_out_is_counted_once_however_a_stream_is_cut() -> None:
    scrub, body = Scrub(["s3cr3t-one", "s3cr3t-two"]), b"a s3cr3t-one b s3cr3t-two c s3cr3t-one"
    for size in range(1, len(body) + 1):
        counts: list[int] = []
        stream = scrub.stream(counts.append)
        for at in range(0, len(body), size):
            stream.feed(body[at : at + size])
        stream.finish()

        assert sum(counts) == scrub.count(body) == 3


def test_a_stream_without_ends_keeps_back_nothing_that_is_short_and_hides_what_follows_from_it() -> None:
    stream, few = PromptStream(lambda: SCRUB), SECRET[: PROMPT_BYTES - 1].encode()

    assert stream.feed(b"$ " + few) == b"$ " + few
    assert (stream.is_remembering, stream.is_waiting) == (True, False)
    assert stream.feed(SECRET[len(few) :].encode()) == mask(len(SECRET))[len(few) :]
    assert (stream.is_remembering, stream.is_waiting) == (False, False)


def test_it_keeps_back_what_is_longer_and_gives_it_at_the_end() -> None:
    stream = PromptStream(lambda: SCRUB)

    assert stream.feed(b"> " + SECRET[:9].encode()) == b"> "
    assert stream.is_waiting
    assert stream.finish() == SECRET[:9].encode()
    assert stream.feed(SECRET[9:].encode()) == SECRET[9:].encode()


@given(bodies.map(b"".join), st.lists(st.integers(0, 300), max_size=12))
def test_however_it_is_cut_it_hides_all_but_the_first_bytes_of_a_secret(body: bytes, cuts: list[int]) -> None:
    counts: list[int] = []
    stream, out = PromptStream(lambda: SCRUB, counts.append), b""
    for start, end in pairwise([0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]):
        out += stream.feed(body[start:end])
    out += stream.finish()
    expected, found = SCRUB.whole(body), SCRUB.find(body)
    shown = {at for start, _ in found for at in range(start, start + PROMPT_BYTES - 1)}

    assert len(out) == len(body)
    assert all(out[at] == expected[at] or (at in shown and out[at] == body[at]) for at in range(len(body)))
    assert sum(counts) == SCRUB.count(body)
