from __future__ import annotations

import pytest
from moat.daemon.events import CLOSED, DROPPED, Event
from moat.daemon.told import LAST, Told, told

STREAM = [
    b": listening\n", b"\n", b"id: 1\n", b"event: exchange\n", b'data: {"run_id":"run_a"}\n', b"\n",
    b": still here\n", b"\n", b"id: 2\n", b"event: closed\n", b"data: {}\n", b"\n",
]  # fmt: skip


def test_events_come_out_and_comments_do_not() -> None:
    events = list(told([*STREAM, b"event: exchange\n", b"\n"]))

    assert events == [Told("exchange", {"run_id": "run_a"}), Told("closed")]
    assert [event.run_id for event in events] == ["run_a", ""]


def test_a_stream_without_an_end_broke_off() -> None:
    events = told(STREAM[:8])
    assert next(events).kind == "exchange"

    with pytest.raises(ConnectionResetError):
        next(events)


def test_what_is_no_event_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        list(told([b"event: exchange\n", b"data: {nonsense\n", b"\n"]))


def test_what_the_daemon_renders_is_read_here() -> None:
    event = Event(7, "exchange", "run_a", {"exchange": {"status": 200}})

    found = next(told(event.render().splitlines(keepends=True)))

    assert found == Told("exchange", {"run_id": "run_a", "exchange": {"status": 200}})
    assert set(LAST) == {CLOSED, DROPPED}
