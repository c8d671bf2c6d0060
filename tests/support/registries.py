"""Three package registries with one package each, `moat-sample`: for pip, npm and cargo. Pure: path in, answer out."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from base64 import b64encode
from functools import cache

from aiohttp import web

ROOT = "https://api.github.com"
NAME, VERSION = "moat-sample", "1.0.0"
WHEEL = "moat_sample-1.0.0-py3-none-any.whl"


def answer(request: web.Request) -> web.Response:
    """Answer a request of pip, npm or cargo."""
    path = request.path.rstrip("/")
    known = {
        f"/simple/{NAME}": _index,
        f"/files/{WHEEL}": _wheel_file,
        f"/npm/{NAME}": _packument,
        f"/npm/{NAME}/-/{NAME}-{VERSION}.tgz": _tarball_file,
        "/cargo/config.json": _cargo_settings,
        "/cargo/api/v1/crates": _crates,
    }
    return known[path]() if path in known else web.json_response({"error": "not found"}, status=404)


def _index() -> web.Response:
    link = f'<a href="{ROOT}/files/{WHEEL}#sha256={hashlib.sha256(_wheel()).hexdigest()}">{WHEEL}</a>'
    return web.Response(text=f"<!DOCTYPE html><html><body>{link}</body></html>", content_type="text/html")


def _wheel_file() -> web.Response:
    return web.Response(body=_wheel(), content_type="application/octet-stream")


@cache
def _wheel() -> bytes:
    info = "moat_sample-1.0.0.dist-info"
    members = {
        "moat_sample.py": "GREETING = 'installed by pip'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*members, f"{info}/RECORD"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in {**members, f"{info}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), text)
    return packed.getvalue()


def _packument() -> web.Response:
    integrity = "sha512-" + b64encode(hashlib.sha512(_tarball()).digest()).decode()
    tarball = f"{ROOT}/npm/{NAME}/-/{NAME}-{VERSION}.tgz"
    version = {"name": NAME, "version": VERSION, "dist": {"tarball": tarball, "integrity": integrity}}
    return web.json_response({"name": NAME, "dist-tags": {"latest": VERSION}, "versions": {VERSION: version}})


def _tarball_file() -> web.Response:
    return web.Response(body=_tarball(), content_type="application/octet-stream")


@cache
def _tarball() -> bytes:
    members = {
        "package/package.json": json.dumps({"name": NAME, "version": VERSION, "main": "index.js"}),
        "package/index.js": "module.exports = 'installed by npm'\n",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(packed.getvalue(), mtime=0)


def _cargo_settings() -> web.Response:
    return web.json_response({"dl": f"{ROOT}/cargo/crates", "api": f"{ROOT}/cargo"})


def _crates() -> web.Response:
    crate = {"name": NAME, "max_version": VERSION, "description": "found by cargo"}
    return web.json_response({"crates": [crate], "meta": {"total": 1}})
