"""A TLS service that answers with the credential of each request: `python echo.py CERTIFICATE PORT_FILE`."""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

END = b"\r\n\r\n"


class Echo(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        *heads, self.data = (self.data + data).split(END)
        answers = [_answer(head) for head in heads]
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(b"".join(answers))


def _answer(head: bytes) -> bytes:
    _, _, rest = head.partition(b"\r\nAuthorization: ")
    value = rest.partition(b"\r\n")[0].rpartition(b" ")[2]
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(value), value[::-1])


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
