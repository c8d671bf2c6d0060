"""Package registries with a package of ours each, `moat-sample`: for pip, npm, cargo and apt. Path in, answer out.

That of apt has a second one, `moat-endless`, which is never done with being installed. Those of pip and npm have real
ones besides: `real_packages`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from base64 import b64encode
from collections.abc import Callable
from functools import cache, partial

from aiohttp import web

from support import real_packages

NAME, VERSION = "moat-sample", "1.0.0"
DEBIAN = {  # name → what is run once it is unpacked
    NAME: "#!/bin/sh\nset -e\nid -u > /etc/moat-sample.by\nchown 65534 /etc/moat-sample.by\n",
    "moat-endless": "#!/bin/sh\necho here it hangs\nexec sleep 600\n",
}
WHEEL = "moat_sample-1.0.0-py3-none-any.whl"


def answer(request: web.Request) -> web.Response:
    """Answer a request of pip, npm, cargo or apt. Links lead to the host that was asked."""
    path, root = request.path.rstrip("/").replace("/./", "/"), f"https://{request.host}"
    known: dict[str, Callable[[], web.Response]] = {
        f"/simple/{NAME}": lambda: _index(root),
        f"/files/{WHEEL}": _wheel_file,
        f"/npm/{NAME}": lambda: _packument(root),
        f"/npm/{NAME}/-/{NAME}-{VERSION}.tgz": _tarball_file,
        "/cargo/config.json": lambda: _cargo_settings(root),
        "/cargo/api/v1/crates": _crates,
        "/debian/Packages": _packages,
        **{f"/debian/{name}.deb": partial(_debian_file, name) for name in DEBIAN},
    }
    if path in known:
        return known[path]()
    return real_packages.answer(path, root) or web.json_response({"error": "not found"}, status=404)


def _index(root: str) -> web.Response:
    link = f'<a href="{root}/files/{WHEEL}#sha256={hashlib.sha256(_wheel()).hexdigest()}">{WHEEL}</a>'
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


def _packument(root: str) -> web.Response:
    integrity = "sha512-" + b64encode(hashlib.sha512(_tarball()).digest()).decode()
    tarball = f"{root}/npm/{NAME}/-/{NAME}-{VERSION}.tgz"
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


def _cargo_settings(root: str) -> web.Response:
    return web.json_response({"dl": f"{root}/cargo/crates", "api": f"{root}/cargo"})


def _crates() -> web.Response:
    crate = {"name": NAME, "max_version": VERSION, "description": "found by cargo"}
    return web.json_response({"crates": [crate], "meta": {"total": 1}})


def _packages() -> web.Response:
    entries = [
        f"{_control(name)}Filename: ./{name}.deb\nSize: {len(_debian(name))}\n"
        f"SHA256: {hashlib.sha256(_debian(name)).hexdigest()}\n"
        for name in DEBIAN
    ]
    return web.Response(text="\n".join(entries))


def _debian_file(name: str) -> web.Response:
    return web.Response(body=_debian(name), content_type="application/octet-stream")


def _control(name: str) -> str:
    return f"Package: {name}\nVersion: {VERSION}\nArchitecture: all\nMaintainer: tests\nDescription: a sample\n"


@cache
def _debian(name: str) -> bytes:
    """Return a Debian package (deb(5)): an `ar` archive of a version, a tar of control files, a tar of files."""
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": _packed({"./control": (_control(name), 0o644), "./postinst": (DEBIAN[name], 0o755)}),
        "data.tar.gz": _packed({f"./etc/{name}": ("installed by apt\n", 0o644)}),
    }
    archive = b"!<arch>\n"
    for member, data in members.items():
        archive += f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        archive += data + b"\n" * (len(data) % 2)
    return archive


def _packed(members: dict[str, tuple[str, int]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, (text, mode) in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text), mode
            tar.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(packed.getvalue(), mtime=0)
