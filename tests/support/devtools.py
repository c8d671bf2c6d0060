"""A browser's developer tools as a user has them: headless Chromium, its tab Network, and a file that is opened there.

    browser ── DevTools protocol (websocket) ── front end of its own ── panel Network ── "Import HAR file"

Nothing is fetched: the front end is part of the browser (devtools://), and it looks at an empty page.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = Path("/usr/bin/chromium")
WAIT_S = 60.0  # a browser that starts while a machine is busy
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-port=0", "--remote-allow-origins=*",
)  # fmt: skip
_PANEL = "devtools://devtools/bundled/devtools_app.html?ws={page}&panel=network"
# What the button "Import HAR file" calls, with the file that was chosen.
_OPEN = """
(async () => {
  const network = await import("./panels/network/network.js");
  window.view = network.NetworkPanel.NetworkPanel.instance().networkLogView;
  await window.view.onLoadFromFile(new File([%s], "run.har"));
})()
"""
_ROWS = """
window.view.flatNodesList().map(node => node.request()).filter(request => request).map(request => ({
  url: request.url(), method: request.requestMethod, status: request.statusCode, text: request.statusText,
  duration: request.duration,
  sent: Object.fromEntries(request.requestHeaders().map(each => [each.name, each.value])),
}))
"""
_CONTENT = "(async () => (await window.view.flatNodesList()[%d].request().requestContentData()).text)()"
_TABLE = "window.view.dataGrid.element.innerText"


@dataclass
class Tools:
    """The developer tools, with their tab Network in front."""

    socket: aiohttp.ClientWebSocketResponse
    session: str = ""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def open(self, archive: str) -> None:
        """Open an archive, as its user would. Raises AssertionError with what the tools say against it."""
        await self.say(_OPEN % json.dumps(archive))

    async def rows(self, count: int) -> list[dict[str, Any]]:
        """Return what the table has, once it has as many rows as this: it is drawn a moment later."""
        return list(await self.until(_ROWS, lambda found: len(found) >= count))

    async def content(self, row: int) -> str:
        """Return the body of an answer, as the tab Response has it."""
        return str(await self.say(_CONTENT % row))

    async def table(self, word: str) -> str:
        """Return the table as it is drawn, once a word stands in it."""
        return str(await self.until(_TABLE, lambda shown: word in shown))

    async def until(self, expression: str, is_there: Callable[[Any], bool]) -> Any:
        """Return what an expression comes to, once that is what was waited for."""
        async with asyncio.timeout(WAIT_S):
            while not is_there(found := await self.say(expression)):  # noqa: ASYNC110 # the browser's doing
                await asyncio.sleep(0.1)
        return found

    async def say(self, expression: str) -> Any:
        """Return what an expression comes to in the front end."""
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = await self.call("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def call(self, method: str, **params: object) -> Any:
        """Call a method of the protocol, and return its result."""
        number = next(self._numbers)
        session = {"sessionId": self.session} if self.session else {}
        await self.socket.send_json({"id": number, "method": method, "params": params, **session})
        async with asyncio.timeout(WAIT_S):
            while (answer := await self.socket.receive_json()).get("id") != number:
                pass
        assert "result" in answer, answer
        return answer["result"]


@contextlib.asynccontextmanager
async def developer_tools() -> AsyncIterator[Tools]:
    """Start a browser, open its developer tools on an empty page, and end it."""
    with _started() as (port, path):
        async with aiohttp.ClientSession() as http:
            socket = await http.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0)
            tools = Tools(socket)
            pages = (await tools.call("Target.getTargets"))["targetInfos"]
            page = next(each["targetId"] for each in pages if each["type"] == "page")
            url = _PANEL.format(page=f"127.0.0.1:{port}/devtools/page/{page}")
            target = (await tools.call("Target.createTarget", url=url))["targetId"]
            attached = await tools.call("Target.attachToTarget", targetId=target, flatten=True)
            tools.session = attached["sessionId"]
            await _ready(tools)
            yield tools
            await socket.close()


async def _ready(tools: Tools) -> None:
    """Wait until the front end has its tab Network in front."""
    await tools.until("document.body?.innerText ?? ''", lambda shown: "Name\tStatus" in shown)


@contextlib.contextmanager
def _started() -> Iterator[tuple[int, str]]:
    """Start a browser; yield the port of its protocol, and the path there."""
    with tempfile.TemporaryDirectory(prefix="moat-chromium-", ignore_cleanup_errors=True) as name:
        yield from _running(Path(name))


def _running(folder: Path) -> Iterator[tuple[int, str]]:
    argv = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
    try:
        yield _told(process, folder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a group of its own: its helpers too
        process.wait()


def _told(process: subprocess.Popen[bytes], folder: Path) -> tuple[int, str]:
    limit = time.monotonic() + WAIT_S
    file = folder / "DevToolsActivePort"
    while time.monotonic() < limit and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            lines = file.read_text().splitlines()
            if len(lines) == 2:
                return int(lines[0]), lines[1]
        time.sleep(0.05)
    raise AssertionError(f"chromium did not start: {(folder / 'said').read_text()}")
