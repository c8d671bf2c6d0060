"""A registry of container images, as far as pushing and pulling one needs it (OCI distribution specification 1.1).

    HEAD /v2/NAME/blobs/DIGEST ─▶ 404 ─▶ POST …/uploads/ ─▶ PATCH (chunked) ─▶ PUT ?digest= ─▶ PUT …/manifests/TAG

It keeps one upload at a time: the tests make one after the other.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from aiohttp import web

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"


class ImageRegistry:
    """What was pushed. blobs: by digest, from one upload. manifests: by path."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self._upload = b""

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request below /v2/."""
        if "/blobs/uploads/" in request.path:
            return await self._uploading(request)
        if "/manifests/" in request.path and request.method == "PUT":
            self.manifests[request.path] = await request.read()
            return web.Response(status=201)
        if request.path.rstrip("/") == "/v2":
            return web.json_response({})
        kept = self.manifests.get(request.path) or self.blobs.get(request.path.rpartition("/")[2])
        if kept is None:
            return web.json_response({"errors": [{"code": "UNKNOWN"}]}, status=404)
        kind = _MANIFEST if "/manifests/" in request.path else "application/octet-stream"
        return web.Response(body=kept, content_type=kind, headers={"Docker-Content-Digest": digest(kept)})

    async def _uploading(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self._upload = b""
        self._upload += await request.read()
        if request.method != "PUT":
            place = request.path.rstrip("/").removesuffix("/1") + "/1"
            return web.Response(status=202, headers={"Location": place})
        self.blobs[request.query["digest"]] = self._upload
        return web.Response(status=201)


def digest(content: bytes) -> str:
    """Return content's name."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def make_image(folder: Path, author: str) -> bytes:
    """Make an image without layers as skopeo's `dir:` has it; return its manifest. author: makes it another image."""
    folder.mkdir()
    parts = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "author": author}
    config = json.dumps(parts).encode()
    described = {"mediaType": _CONFIG, "digest": digest(config), "size": len(config)}
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": described, "layers": []}
    text = json.dumps(manifest).encode()
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    (folder / digest(config).removeprefix("sha256:")).write_bytes(config)
    (folder / "manifest.json").write_bytes(text)
    return text
