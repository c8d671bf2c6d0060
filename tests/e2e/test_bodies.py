"""Bodies pass as they come: events while the response goes on, and 50 MB either way without a changed byte."""

from __future__ import annotations

import json

from support.places import Place
from support.services import blob_digest

API = "https://api.github.com"
SIZE = 50_000_000


def test_an_event_arrives_inside_before_the_response_ends(place: Place) -> None:
    run = place.start("curl", "-sSN", f"{API}/sse")
    assert run.stdout is not None

    first = run.stdout.readline()
    place.services.go_on()
    rest, said = run.communicate(timeout=60)

    assert first == b"data: first\n", said
    assert b"data: second\n" in rest


def test_an_event_arrives_on_the_transparent_path_before_the_response_ends(place: Place) -> None:
    run = place.start("curl", "-sSN", "--noproxy", "*", f"{API}/sse")
    assert run.stdout is not None

    first = run.stdout.readline()
    place.services.go_on()
    run.communicate(timeout=60)

    assert first == b"data: first\n"


def test_a_large_download_arrives_byte_for_byte(place: Place) -> None:
    output = place.ok("sh", "-c", f"curl -sS '{API}/blob?n={SIZE}' | sha256sum")

    assert output.split()[0] == blob_digest(SIZE)


def test_a_large_upload_of_known_length_arrives_byte_for_byte(place: Place) -> None:
    output = place.ok(
        "sh", "-c", f"head -c {SIZE} /dev/urandom > f && sha256sum f && curl -sS -T f {API}/upload && rm f"
    )

    _assert_uploaded(output, chunked=False)


def test_a_large_upload_of_unknown_length_arrives_byte_for_byte(place: Place) -> None:
    output = place.ok(
        "sh", "-c", f"head -c {SIZE} /dev/urandom > f && sha256sum f && cat f | curl -sS -T - {API}/upload && rm f"
    )

    _assert_uploaded(output, chunked=True)


def test_a_large_output_of_the_command_arrives_byte_for_byte(place: Place) -> None:
    done = place.run("sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' '\\377'")

    assert done.stdout == b"\xff" * 5_000_000


def _assert_uploaded(output: str, *, chunked: bool) -> None:
    local, arrived = output.splitlines()
    assert json.loads(arrived) == {"bytes": SIZE, "sha256": local.split()[0], "chunked": chunked}
