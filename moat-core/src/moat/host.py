"""The real Host: the environment, files, programs, prompts and HTTPS of the machine that moat runs on.

Providers are handed this and touch nothing else. It never prints: words go through `say`. A question is asked on the
terminal itself, so that standard output stays the command's; where nobody can answer it is never asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import ipaddress
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from moat.api.credentials import CommandResult, HttpRequest, HttpResponse
from moat.api.errors import GrantFailed
from moat.config.settings import UpstreamSettings

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver

    from moat.net.route import ProxyRoute

BODY_LIMIT_BYTES = 1024 * 1024
OUTPUT_LIMIT_BYTES = 1024 * 1024  # of a program: a token is far shorter
LAST_WORDS_S = 1.0  # what a killed program said is there at once, unless a child that left its group holds the pipe


@dataclass(frozen=True, slots=True)
class RealHost:
    """The machine, on behalf of one `moat grant`.

    grant: the name used in hints. variables: those that could have held the secret, for hints. say: shows one line.
    folder: where programs are run; None for where we are.
    """

    env: Mapping[str, str]
    upstream: UpstreamSettings
    say: Callable[[str], None]
    grant: str = ""
    variables: Sequence[str] = ()
    validate: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.now(UTC)

    def read(self, path: Path) -> bytes | None:
        """Return a file's bytes, or None where there is none. Raises GrantFailed when it cannot be read."""
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as failure:
            raise GrantFailed(f"{path} cannot be read: {os.strerror(failure.errno or 0)}") from None

    async def run(self, *argv: str, timeout_s: float = 10.0) -> CommandResult | None:
        """Run a program without a shell and without input; None when it is not installed.

        Raises GrantFailed when it does not end in time or says more than 1 MiB.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=self.folder,
                env=dict(self.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # no terminal to prompt on, and one group to kill
            )
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            return None
        try:
            async with asyncio.timeout(timeout_s):
                stdout, stderr = await _output(process)
                await process.wait()
        except BaseException as failure:
            await _killed(process)
            if isinstance(failure, TimeoutError):
                problem = f"{argv[0]} did not end in {timeout_s:g} s"
                raise GrantFailed(problem, hint=self._unattended_hint()) from None
            raise
        if max(len(stdout), len(stderr)) > OUTPUT_LIMIT_BYTES:
            raise GrantFailed(f"{argv[0]} said more than {OUTPUT_LIMIT_BYTES} bytes", hint=self._unattended_hint())
        return CommandResult(process.returncode or 0, stdout.decode(errors="replace"), stderr.decode(errors="replace"))

    async def ask(self, question: str, *, secret: bool = True) -> str:
        """Ask for one line, hidden when secret. Raises GrantFailed when nobody can be asked."""
        if not self._can_ask():
            raise GrantFailed(f"nobody can be asked for the {question}", hint=self._unattended_hint())
        try:
            with _interruptible():
                return getpass.getpass(f"{question}: ", sys.stderr) if secret else _line(f"{question}: ")
        except EOFError:
            raise GrantFailed("no answer was given; nothing was saved", hint=self._unattended_hint()) from None

    async def confirm(self, question: str) -> bool:
        """Ask yes or no, yes when only Return is pressed; False when nobody can be asked."""
        if not self._can_ask():
            return False
        try:
            with _interruptible():
                return _line(f"{question} [Y/n] ").strip().lower() in ("", "y", "yes")
        except EOFError:
            return False

    async def fetch(self, request: HttpRequest, *, timeout_s: float = 10.0) -> HttpResponse:
        """Send one https request through the upstream settings, following no redirect, reading at most 1 MiB."""
        import aiohttp

        host = urlsplit(request.url).hostname or ""
        try:
            async with asyncio.timeout(timeout_s), self._session() as session:
                _refuse_literal(host, self.upstream)
                return await _exchange(session, request, _route(self.upstream, request.url))
        except TimeoutError:
            raise self._unreachable(host, f"no answer in {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as failure:
            raise self._unreachable(host, _cause(failure)) from None

    def _session(self) -> aiohttp.ClientSession:
        import aiohttp

        trust = ssl.create_default_context()
        if self.upstream.ca_bundle is not None:
            try:
                trust.load_verify_locations(self.upstream.ca_bundle)
            except OSError as failure:  # ssl.SSLError is one
                raise GrantFailed(f"{self.upstream.ca_bundle} holds no usable certificates: {failure}") from None
        connector = aiohttp.TCPConnector(ssl=trust, resolver=_resolver(self.upstream), use_dns_cache=False)
        return aiohttp.ClientSession(connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar())

    def _can_ask(self) -> bool:
        return self.env.get("MOAT_NO_PROMPT", "") in ("", "0") and sys.stdin.isatty() and sys.stderr.isatty()

    def _unattended_hint(self) -> str:
        variables = " or ".join(self.variables)
        return (f"set {variables}, or " if variables else "") + f"run: moat grant {self.grant} --with-token < FILE"

    def _unreachable(self, host: str, why: str) -> GrantFailed:
        return GrantFailed(
            f"{host} cannot be reached: {why}; nothing was saved",
            hint=f"check the network, or store it unchecked: moat grant {self.grant} --no-validate",
        )


async def _output(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    """Return what a program says on both its streams, each cut off one byte beyond the limit."""
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(_beginning(stream)) for stream in (process.stdout, process.stderr) if stream]
    return both[0].result(), both[1].result()


async def _killed(process: asyncio.subprocess.Process) -> None:
    """End a program and its children, those too that have outlived it and keep its output open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS_S):
            await _output(process)  # a pipe that asyncio has paused ends no wait()
            await process.wait()


async def _beginning(stream: asyncio.StreamReader) -> bytes:
    """Read to the end, so that the program is not held up, and keep the beginning."""
    kept = bytearray()
    while data := await stream.read(65_536):
        kept += data[: OUTPUT_LIMIT_BYTES + 1 - len(kept)]
    return bytes(kept)


async def _exchange(session: aiohttp.ClientSession, request: HttpRequest, route: ProxyRoute | None) -> HttpResponse:
    parts = urlsplit(request.url)
    if parts.scheme != "https" or not parts.hostname:
        raise GrantFailed(f"{parts.scheme}://{parts.hostname} is not an https address")
    async with session.request(
        request.method,
        request.url,
        headers=dict(request.headers),
        data=request.body or None,
        allow_redirects=False,
        proxy=None if route is None else f"http://{route}",
        proxy_headers=None if route is None else dict(route.fields),
    ) as response:
        body = bytearray()
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > BODY_LIMIT_BYTES:
                    raise GrantFailed(f"{parts.hostname} answered more than {BODY_LIMIT_BYTES} bytes")
        except BaseException:
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()  # a polite TLS close would wait for the peer after the loop's end
            raise
        return HttpResponse(response.status, dict(response.headers), bytes(body))


def _line(prompt: str) -> str:
    sys.stderr.write(prompt)
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        raise EOFError
    return answer.rstrip("\n")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a blocking read at once.

    asyncio's runner answers the first SIGINT by cancelling a task, which a blocking read would never notice.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _route(upstream: UpstreamSettings, url: str) -> ProxyRoute | None:
    """Return the proxy that url is reached through; None for direct, as pinned hosts always are."""
    if not upstream.proxy:
        return None
    from moat.net.authority import AuthorityRefused, from_absolute
    from moat.net.route import ProxyRoute

    try:
        authority, _ = from_absolute(url)
        route = ProxyRoute.parse(upstream.proxy, upstream.no_proxy)
    except AuthorityRefused as refused:
        raise GrantFailed(str(refused), hint="edit config.yaml") from None
    is_direct = upstream.pinned(authority.host) is not None or not route.is_for(authority)
    return None if is_direct else route


def _resolver(upstream: UpstreamSettings) -> AbstractResolver:
    """Return a resolver that knows the pins and refuses, before anything is dialled, what must not be dialled."""
    from aiohttp.abc import AbstractResolver, ResolveResult

    class GuardedResolver(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
        ) -> list[ResolveResult]:
            pin = upstream.pinned(host)
            addresses = [pin[0]] if pin else await _addresses(host, family)
            is_named = pin is not None or host == _proxy_host(upstream)
            refusals = [_refusal(address, upstream, is_named=is_named) for address in addresses]
            allowed = [address for address, refusal in zip(addresses, refusals, strict=True) if refusal is None]
            if not allowed:
                raise OSError(None, f"its address may not be dialled ({refusals[0]})")
            port = (pin[1] if pin else None) or port
            return [
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                    proto=socket.IPPROTO_TCP,
                    flags=socket.AI_NUMERICHOST,
                )
                for address in allowed
            ]

        async def close(self) -> None:
            return

    return GuardedResolver()


def _refuse_literal(host: str, upstream: UpstreamSettings) -> None:
    """Raise for an address in the URL itself that may not be dialled: no resolver is asked about those."""
    with contextlib.suppress(ValueError):
        if why := _refusal(str(ipaddress.ip_address(host)), upstream):
            raise OSError(None, f"its address may not be dialled ({why})")


def _proxy_host(upstream: UpstreamSettings) -> str:
    return (urlsplit(upstream.proxy).hostname or "") if upstream.proxy else ""


def _refusal(address: str, upstream: UpstreamSettings, *, is_named: bool = False) -> str | None:
    """Return why an address may not be dialled.

    is_named: of a pinned host or the company's proxy, whose addresses may be dialled unless it is a metadata service's.
    """
    from moat.net.addresses import is_metadata, refusal

    if is_named:
        return f"{address} is a metadata service" if is_metadata(address) else None
    return refusal(address, [ipaddress.ip_network(cidr) for cidr in upstream.allow_cidrs])


async def _addresses(host: str, family: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _cause(failure: Exception) -> str:
    """Return why a connection failed, in a few words that hold nothing of the request."""
    if (status := getattr(failure, "status", 0)) and type(failure).__name__ == "ClientHttpProxyError":
        return "upstream.proxy wants other credentials" if status == 407 else f"upstream.proxy answered {status}"
    inner = getattr(failure, "os_error", failure)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({inner.verify_message})"
    if isinstance(inner, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror.lower() if inner.errno else inner.strerror
    return type(failure).__name__
