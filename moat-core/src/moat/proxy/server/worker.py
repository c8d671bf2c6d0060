"""The data plane's process: takes snapshots and sockets from the daemon, serves them, reports every exchange.

    python -m moat.proxy.server.worker --channel FD --audit FD [--log PATH]

It is given the rules of live runs and the CA's key, never the store or its key, and confines itself before it serves.
The end of the channel is its end. What the audit is asked goes over a socket of its own, to a thread that does nothing
else: neither waits for what comes over the channel.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import uvloop

from moat.api.errors import MoatError
from moat.frames import FrameChannel, FrameError
from moat.log import Redactor, log_to_file
from moat.net.authority import AuthorityRefused
from moat.net.route import proxy_secrets
from moat.proxy.endpoint import endpoint_rules
from moat.proxy.entering import Entered
from moat.proxy.messages import (
    Answered,
    Configure,
    Drop,
    Kept,
    Listen,
    MessageError,
    Named,
    Ping,
    Pong,
    Ready,
    SetRun,
    Signature,
    Stop,
    decode,
    encode,
)
from moat.proxy.server.confine import confine, harden, readable_paths, tune_malloc
from moat.proxy.server.house import House
from moat.proxy.server.reports import Reports

GARBAGE = 10_000  # objects between two looks for cycles: eight tunnels at once have more than the 700 of Python's own

log = logging.getLogger(__name__)


async def serve(channel: FrameChannel, audit: FrameChannel, redactor: Redactor) -> None:
    """Serve until the daemon says stop or is gone."""

    reports = Reports(channel)
    async with asyncio.TaskGroup() as group:
        named, ask = (lambda *named: reports.send(Named(*named))), reports.send
        house = House(group, reports.exchange, named, ask=ask, emit_forwarded=reports.forwarded,
                      spend=lambda spends: audit.send(encode(spends)))  # fmt: skip
        entering = group.create_task(_enter(audit, house))
        reports.send(Ready())
        try:
            if await _follow(channel, reports, house, redactor):
                await _drain(channel, reports, house, redactor)
        finally:
            house.close()
            entering.cancel()
    reports.flush()
    audit.close()
    channel.close()


async def _enter(audit: FrameChannel, house: House) -> None:
    """Take what the audit says, until nobody is there any more: then nothing is spent, and the channel ends too."""
    with suppress(FrameError, MessageError):
        while (received := await audit.receive()) is not None:
            message = decode(received[0])
            if isinstance(message, Entered):
                house.answered(message)


async def _drain(channel: FrameChannel, reports: Reports, house: House, redactor: Redactor) -> None:
    """Let the exchanges under way end; some may need the daemon's answer to a question."""
    async with asyncio.TaskGroup() as group:
        following = group.create_task(_follow(channel, reports, house, redactor))
        await house.drain()
        following.cancel()


async def _follow(channel: FrameChannel, reports: Reports, house: House, redactor: Redactor) -> bool:
    """Obey what the daemon says until it says stop; False when it is gone."""
    while (received := await channel.receive()) is not None:
        wire, descriptors = received
        try:
            message = decode(wire)
            if isinstance(message, Stop):
                return True
            if isinstance(message, Ping):
                reports.send(Pong(message.id))
            else:
                _obey(message, descriptors, house, redactor)
        except (MessageError, AuthorityRefused, MoatError, OSError, ValueError) as problem:
            # ssl's and cryptography's errors are ValueErrors or OSErrors. The text of none quotes a secret.
            log.error("a message was not obeyed", extra={"type": str(wire.get("type"))[:32], "problem": str(problem)})
        finally:
            for number in descriptors:
                os.close(number)
    return False


def _obey(message: object, descriptors: list[int], house: House, redactor: Redactor) -> None:
    """Put one message in force. Descriptors that are taken leave the list."""
    match message:
        case Configure():
            for secret in proxy_secrets(message.proxy):
                redactor.learn(secret)
            house.configure(message)
        case SetRun(context, names):
            for rule in (*context.rules, *endpoint_rules(context)):
                redactor.learn(getattr(rule, "value", "").rpartition(" ")[2])  # the token of `Bearer …` and `Basic …`
            house.put(context, names)
        case Listen(run_id, name) if len(descriptors) == 1:
            house.listen(run_id, name, socket.socket(fileno=descriptors.pop()))
        case Answered() | Signature() | Kept():
            house.answered(message)
        case Drop(run_id):
            house.drop(run_id)
        case _:
            raise MessageError("a message for the daemon, or without its descriptor")


def main(argv: list[str] | None = None) -> int:
    """Run the worker; return its exit code."""
    parser = argparse.ArgumentParser(description="moat's data plane; the daemon starts it")
    parser.add_argument("--channel", type=int, required=True, help="descriptor of a socket to the daemon")
    parser.add_argument("--audit", type=int, required=True, help="descriptor of a socket to the audit's writer")
    parser.add_argument("--log", type=Path, help="where to log; nowhere without it")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the command, not for what serves it
    redactor = Redactor()
    if options.log is not None:
        log_to_file(options.log, redactor)
    harden()
    tune_malloc()
    gc.freeze()  # what is there by now stays, and need not be looked at
    gc.set_threshold(GARBAGE)
    if not confine(readable_paths()):
        log.warning("this kernel has no Landlock; the worker can read its user's files")
    return uvloop.run(_run(options.channel, options.audit, redactor))


async def _run(channel: int, audit: int, redactor: Redactor) -> int:
    try:
        await serve(FrameChannel(socket.socket(fileno=channel)), FrameChannel(socket.socket(fileno=audit)), redactor)
    except FrameError:
        log.exception("the daemon's messages cannot be read")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
