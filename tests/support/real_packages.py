"""Packages of the real world, packed again for a registry that stands in: what this machine has installed.

Python's come from the tests' own environment, as wheels; Node's from what scripts/clients.sh brought, as tarballs.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from aiohttp import web

from support.inside import BROUGHT

_NOT_PACKED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")  # of the installation, not of the package


def answer(path: str, root: str) -> web.Response | None:
    """Answer what pip asks below /simple and /files, and npm below /npm; None for what is not there."""
    kind, _, rest = path.lstrip("/").partition("/")
    try:
        match kind:
            case "simple":
                return _index(rest, root)
            case "files":
                return _file(_wheel(rest.partition("-")[0].replace("_", "-")))
            case "npm":
                name, separator, _ = rest.partition("/-/")
                return _file(_tarball(name)) if separator else _packument(name, root)
    except (metadata.PackageNotFoundError, FileNotFoundError, ValueError):
        pass
    return None


def _file(data: bytes) -> web.Response:
    return web.Response(body=data, content_type="application/octet-stream")


def _index(name: str, root: str) -> web.Response:
    version = metadata.version(name)
    file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    link = f'<a href="{root}/files/{file}#sha256={hashlib.sha256(_wheel(name)).hexdigest()}">{file}</a>'
    return web.Response(text=f"<!DOCTYPE html><html><body>{link}</body></html>", content_type="text/html")


@cache
def _wheel(name: str) -> bytes:
    packed, names = io.BytesIO(), []
    with zipfile.ZipFile(packed, "w") as archive:
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and source.suffix != ".pyc" and file.name not in _NOT_PACKED:
                archive.write(source, str(file))
                names.append(str(file))
        info = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
        record = "".join(f"{each},,\n" for each in (*names, f"{info}/RECORD"))
        archive.writestr(f"{info}/RECORD", record)
    return packed.getvalue()


def _packument(name: str, root: str) -> web.Response:
    about = _about(name)
    integrity = "sha512-" + b64encode(hashlib.sha512(_tarball(name)).digest()).decode()
    version = str(about["version"])
    dist = {"tarball": f"{root}/npm/{name}/-/{name}-{version}.tgz", "integrity": integrity}
    kept = {key: about[key] for key in ("name", "version", "dependencies", "bin", "main", "engines") if key in about}
    return web.json_response(
        {"name": name, "dist-tags": {"latest": version}, "versions": {version: {**kept, "dist": dist}}}
    )


@cache
def _tarball(name: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in _members(_folder(name)):
            archive.add(path, f"package/{path.relative_to(_folder(name))}")
    return gzip.compress(packed.getvalue(), mtime=0)


def _members(folder: Path) -> Iterator[Path]:
    nested = folder / "node_modules"
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_relative_to(nested))


def _about(name: str) -> dict[str, object]:
    about = json.loads((_folder(name) / "package.json").read_text())
    assert isinstance(about, dict)
    return about


def _folder(name: str) -> Path:
    if not name or ".." in name:
        raise ValueError(name)
    return BROUGHT / "node_modules" / name
