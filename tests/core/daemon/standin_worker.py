"""A small worker that speaks the protocol and shows what is in force: every socket answers one line with one JSON line.

Lines: `state`, `die`, `hang`, `garbage`, `record <run_id>`, `named <run_id> <host> <address>`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from collections import Counter
from typing import Any

from moat.frames import FrameChannel
from moat.proxy.counts import Counts
from moat.proxy.messages import Exchanges, encode


class StandIn:
    def __init__(self, channel: FrameChannel) -> None:
        self.channel = channel
        self.state: dict[str, Any] = {"pid": os.getpid(), "configured": 0, "runs": {}, "listeners": []}

    async def serve(self, group: asyncio.TaskGroup) -> None:
        while (frame := await self.channel.receive()) is not None:
            message, descriptors = frame
            match message["type"]:
                case "configure":
                    self.state["configured"] += 1
                    self.state["upstream"] = message["upstream"]
                case "run":
                    self.state["runs"][message["context"]["run_id"]] = message
                case "drop":
                    self.state["runs"].pop(message["run_id"], None)
                case "ping":
                    self.channel.send({"type": "pong", "id": message["id"]})
                case "listen":
                    self.state["listeners"].append([message["run_id"], message["name"]])
                    group.create_task(self.accept(socket.socket(fileno=descriptors[0])))
                case "stop":
                    return

    async def accept(self, sock: socket.socket) -> None:
        if sock.type != socket.SOCK_STREAM:
            return
        server = await asyncio.start_server(self.answer, sock=sock)
        await server.serve_forever()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        words = (await reader.readline()).decode().split()
        match words:
            case ["GET", "/_moat/probe", _]:
                (run,) = self.state["runs"].values()
                writer.write(f"HTTP/1.1 200 OK\r\n\r\n{run['context']['probe_answer']}".encode())
                writer.close()
                return
            case ["die"]:
                os._exit(7)
            case ["hang"]:
                threading.Event().wait()
            case ["garbage"]:
                for message in ({"type": "exchanges", "run_id": 7}, {"type": "named"}, {"type": "news"}):
                    self.channel.send(message)
            case ["record", run_id]:
                line = json.dumps(record(run_id)).encode() + b"\n"
                counts = Counts(Counter(denied=1), Counter({403: 1}))
                self.channel.send(encode(Exchanges(run_id, counts, line)))
            case ["named", run_id, name, address]:
                self.channel.send({"type": "named", "run_id": run_id, "name": name, "address": address})
        writer.write(json.dumps(self.state).encode() + b"\n")
        await writer.drain()
        writer.close()


def record(run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id, "at": "2026-01-01T00:00:00+00:00", "via": "connect", "method": "GET", "scheme": "https",
        "host": "api.example.com", "port": 443, "path": "/", "status": 403, "outcome": "denied", "reason": "",
        "grants": [], "request_bytes": 0, "response_bytes": 0, "duration_ms": 0.5, "allow_line": "", "news": 1,
    }  # fmt: skip


async def main() -> None:
    channel = FrameChannel(socket.socket(fileno=int(sys.argv[sys.argv.index("--channel") + 1])))
    channel.send({"type": "ready"})
    async with asyncio.TaskGroup() as group:
        await StandIn(channel).serve(group)
        os._exit(0)


asyncio.run(main())
