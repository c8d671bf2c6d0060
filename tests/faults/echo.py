"""A TLS service that tells whose credential a request was spent with: `python echo.py CERTIFICATE PORT_FILE`.

GET …        ─▶ 200 and the token backwards; 401 when it is two renewals old, since each is replaced by the next
POST /token  ─▶ the token `tok-s3cr3t-OWNER-4` for `tok-s3cr3t-OWNER-3`, once; 400 for one that was replaced
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections import defaultdict
from pathlib import Path

END = b"\r\n\r\n"
LATEST: defaultdict[str, int] = defaultdict(int)  # by owner


class Echo(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        answers = []
        while END in self.data:
            head, _, rest = self.data.partition(END)
            length = int(_header(head, b"content-length") or b"0")
            if len(rest) < length:
                break
            answers.append(_answer(head, rest[:length]))
            self.data = rest[length:]
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(b"".join(answers))


def _answer(head: bytes, body: bytes) -> bytes:
    if head.startswith(b"POST /token "):
        return _renewed(json.loads(body)["refresh_token"])
    value = _header(head, b"authorization").rpartition(b" ")[2]
    owner, number = _parts(value.decode("latin-1"))
    return _response(b"200 OK" if number >= LATEST[owner] - 1 else b"401 Unauthorized", value[::-1])


def _renewed(token: str) -> bytes:
    owner, number = _parts(token)
    if number != LATEST[owner]:
        return _response(b"400 Bad Request", b"")
    LATEST[owner] += 1
    return _response(b"200 OK", json.dumps({"access_token": f"tok-s3cr3t-{owner}-{LATEST[owner]}"}).encode())


def _parts(token: str) -> tuple[str, int]:
    """Return owner and number of a token; no number that is ever accepted for what is none."""
    words = token.split("-")
    return (words[2], int(words[3])) if len(words) == 4 else ("", -1_000)


def _header(head: bytes, name: bytes) -> bytes:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return next((value.strip() for found, _, value in lines if found.lower() == name), b"")


def _response(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


async def main(certificate: str, port_file: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, ssl=context, backlog=1024)
    draft = port_file.with_suffix(".new")
    draft.write_text(str(server.sockets[0].getsockname()[1]))
    draft.rename(port_file)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
