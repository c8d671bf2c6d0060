"""The two programs of `grpc_service`: grpcio brings threads of its own, which stay out of the tests' process.

python -m support.grpc_program serve PEM AUTHORIZATION          facts as JSON lines, until standard input ends
python -m support.grpc_program call HOST:PORT METHOD [WORD…]    one JSON object
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc  # type: ignore[import-untyped]  # its stubs are a distribution of their own

SERVICE = "demo.Service"
PATIENCE_S = 30


def tell(**facts: object) -> None:
    """Say something to whoever started this program."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def hello(request: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("x-trail", "the end"),))
    return b"hello " + request


def count(request: bytes, context: Any) -> Iterator[bytes]:
    for number in range(int(request)):
        yield str(number).encode()
    context.set_trailing_metadata((("x-trail", "counted"),))


def echo(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    del context
    yield from requests


def repeat(request: bytes, context: Any) -> bytes:
    context.set_compression(grpc.Compression.Gzip)
    authorization: str = dict(context.invocation_metadata())["authorization"]
    return request + authorization.encode() * 3


def fail(request: bytes, context: Any) -> None:
    context.abort(grpc.StatusCode.ALREADY_EXISTS, "there is one: " + request.decode())


def wait(request: bytes, context: Any) -> Iterator[bytes]:
    del request
    over, is_late = threading.Event(), threading.Event()

    def ended() -> None:  # called also where the client was so quick that nothing below is
        tell(cancelled=not is_late.is_set())
        over.set()

    context.add_callback(ended)
    yield b"waiting"
    tell(waiting=True)
    if not over.wait(PATIENCE_S):
        is_late.set()


def serve(pem: str, authorization: str) -> None:
    """Serve until standard input ends."""

    def guarded(method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, context: Any) -> Any:
            found = dict(context.invocation_metadata()).get("authorization", "")
            tell(method=method, authorization=found)
            if found != authorization:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
            return behaviour(request, context)

        return call

    handlers = {
        "Hello": grpc.unary_unary_rpc_method_handler(guarded("Hello", hello)),
        "Count": grpc.unary_stream_rpc_method_handler(guarded("Count", count)),
        "Echo": grpc.stream_stream_rpc_method_handler(guarded("Echo", echo)),
        "Repeat": grpc.unary_unary_rpc_method_handler(guarded("Repeat", repeat)),
        "Fail": grpc.unary_unary_rpc_method_handler(guarded("Fail", fail)),
        "Wait": grpc.unary_stream_rpc_method_handler(guarded("Wait", wait)),
    }
    server = grpc.server(ThreadPoolExecutor(8), handlers=[grpc.method_handlers_generic_handler(SERVICE, handlers)])
    text = Path(pem).read_bytes()
    key = text.index(b"-----BEGIN PRIVATE KEY")
    tell(port=server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(text[key:], text[:key])])))
    server.start()
    sys.stdin.read()
    server.stop(0)


def call(target: str, method: str, *words: str) -> None:
    """Make one call, with a placeholder for a credential."""
    is_clear = target.startswith("unix:")
    channel = grpc.insecure_channel(target) if is_clear else grpc.secure_channel(target, grpc.ssl_channel_credentials())
    options = {"metadata": (("authorization", "Bearer placeholder"),), "timeout": PATIENCE_S}
    try:
        tell(**_made(channel, method, options, words))
    except grpc.RpcError as error:
        tell(code=error.code().name, details=error.details())
    channel.close()


def _made(channel: Any, method: str, options: dict[str, Any], words: tuple[str, ...]) -> dict[str, object]:
    path, first = f"/{SERVICE}/{method}", words[0].encode() if words else b""
    if method == "Converse":
        return {"answers": list(_conversation(channel.stream_stream(f"/{SERVICE}/Echo"), options, words))}
    if method == "Repeat":
        packing = grpc.Compression.Gzip if words[1:] else None
        return {"answer": channel.unary_unary(path)(first, compression=packing, **options).decode()}
    if method in ("Hello", "Fail"):
        answer, done = channel.unary_unary(path).with_call(first, **options)
        return {"answer": answer.decode(), "trailers": dict(done.trailing_metadata()), "code": done.code().name}
    if method == "Echo":
        messages = [bytes([number % 256]) * int(words[1]) for number in range(int(words[0]))]
        answers = list(channel.stream_stream(path)(iter(messages), **options))
        return {"same": answers == messages, "count": len(answers)}
    answers = channel.unary_stream(path)(first, **options)
    if method == "Wait":
        said = next(answers).decode()
        answers.cancel()
        return {"first": said, "code": answers.code().name}
    got = [answer.decode() for answer in answers]
    return {"count": len(got), "last": got[-1], "trailers": dict(answers.trailing_metadata())}


def _conversation(echo: Callable[..., Any], options: dict[str, Any], words: tuple[str, ...]) -> Iterator[str]:
    """Say each word once the one before was answered."""
    said: SimpleQueue[str] = SimpleQueue()
    answers = echo((word.encode() for word in iter(said.get, "")), **options)
    for word in words:
        said.put(word)
        yield next(answers).decode()
    said.put("")


if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {"serve": serve, "call": call}
    programs[sys.argv[1]](*sys.argv[2:])
