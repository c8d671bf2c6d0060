"""Git's own server program behind an HTTP handler: `git http-backend` is a CGI program, streamed both ways.

A request's body is passed on without its length, as CGI allows: it may be chunked, or was compressed on the way.
"""

from __future__ import annotations

import asyncio
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

NOTHING: Mapping[str, str] = {}


def make_project(projects: Path, name: str, files: Mapping[str, str] = NOTHING) -> Path:
    """Make a repository with one commit of files on `main` that takes pushes.

    name: as in its address, `owner/project.git`. files: path → text.
    """
    bare = projects / name
    _git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    _git("-C", str(bare), "config", "http.receivepack", "true")
    for path, text in files.items():
        blob = _git("-C", str(bare), "hash-object", "-w", "--stdin", input=text)
        _git("-C", str(bare), "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    tree = _git("-C", str(bare), "write-tree")
    commit = _git("-C", str(bare), "-c", "user.name=t", "-c", "user.email=t@t", "commit-tree", tree, "-m", "first")
    _git("-C", str(bare), "update-ref", "refs/heads/main", commit)
    return bare


def log(bare: Path) -> list[str]:
    """Return the subjects of the commits on `main`, newest first."""
    return _git("-C", str(bare), "log", "--format=%s", "main").splitlines()


async def answer(request: web.Request, projects: Path) -> web.StreamResponse:
    """Answer one request of git's smart protocol."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "GIT_PROJECT_ROOT": str(projects),
        "GIT_HTTP_EXPORT_ALL": "1",
        "REQUEST_METHOD": request.method,
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query_string,
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        "HTTP_GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        "REMOTE_USER": "x-access-token",
        "REMOTE_ADDR": "127.0.0.1",
    }
    backend = await asyncio.create_subprocess_exec("git", "http-backend", stdin=PIPE, stdout=PIPE, env=environment)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_feed(request, backend))
        answering = tasks.create_task(_relay(request, backend))
    await backend.wait()
    return answering.result()


async def _feed(request: web.Request, backend: Process) -> None:
    assert backend.stdin is not None
    async for piece in request.content.iter_any():
        backend.stdin.write(piece)
        await backend.stdin.drain()
    backend.stdin.close()


async def _relay(request: web.Request, backend: Process) -> web.StreamResponse:
    assert backend.stdout is not None
    response = web.StreamResponse()
    while line := (await backend.stdout.readline()).strip().decode():
        name, _, value = line.partition(": ")
        if name == "Status":
            response.set_status(int(value.split()[0]))
        else:
            response.headers[name] = value
    await response.prepare(request)
    while piece := await backend.stdout.read(65_536):
        await response.write(piece)
    return response


def _git(*arguments: str, input: str = "") -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, input=input, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
