"""What the engine is asked while an image is made, and what is undone when that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from moat.api.container import Mount
from moat.api.errors import SandboxFailed
from moat.api.images import BuildOrder
from moat.api.runtimes import DoorTicket
from moat.runtimes.docker_images import DockerImages
from support.fake_engine import fake_engine

ORDER = BuildOrder(
    "run_0123456789ab",
    "sha256:base",
    "debian",
    "moat/debian:1",
    ("/bin/sh", "/dev/moat/build"),
    (Mount(Path("/h/build"), "/dev/moat/build", read_only=True),),
    ("rust",),
)
LISTED = {
    "RepoTags": ["moat/debian:1"],
    "Created": 86_400,
    "Size": 7,
    "Labels": {"moat.base": "debian", "moat.dependencies": "go@1.23 rust"},
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOAT_HOME", str(tmp_path / "moat"))


async def nothing_created(_: str) -> None:
    raise AssertionError("no container is to be made")


async def test_an_image_is_known_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"GET images/debian/json": (200, {"Id": "sha256:a"})}
    async with fake_engine(tmp_path, monkeypatch, answers):
        images = DockerImages(has_door=True)

        assert await images.identify("debian") == "sha256:a"
        assert await images.identify("absent") == ""


async def test_only_images_of_this_installation_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = {**LISTED, "RepoTags": ["moat/debian:2"], "Created": 90_000}
    untagged = {**LISTED, "RepoTags": None}
    other = {**LISTED, "RepoTags": ["mine:1"], "Labels": {"moat.home": "the same"}}
    listed = [LISTED, newer, untagged, other]
    async with fake_engine(tmp_path, monkeypatch, {"GET images/json": (200, listed)}) as engine:
        found = await DockerImages(has_door=True).built()

    assert [each.tag for each in found] == ["moat/debian:2", "moat/debian:1"]
    assert (found[1].base, found[1].dependencies, found[1].size) == ("debian", ("go@1.23", "rust"), 7)
    assert found[1].created == "1970-01-02T00:00:00+00:00"
    labels = json.loads(engine.queries["GET images/json"]["filters"])["label"]
    assert [label.partition("=")[0] for label in labels] == ["moat.home"]


async def test_without_a_door_nothing_is_built(tmp_path: Path) -> None:
    ticket = DoorTicket(ORDER.run_id, tmp_path, "n0nce")

    with pytest.raises(SandboxFailed, match="only where the engine is on this machine"):
        await DockerImages(has_door=False).build(ORDER, ticket, nothing_created, lambda _: None)


async def test_a_base_image_that_is_gone_by_now_ends_it_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = DoorTicket(ORDER.run_id, tmp_path, "n0nce")
    async with fake_engine(tmp_path, monkeypatch, {}) as engine:
        with pytest.raises(SandboxFailed, match="no image sha256:base any more"):
            await DockerImages(has_door=True).build(ORDER, ticket, nothing_created, lambda _: None)

    assert [call for call in engine.calls if not call.startswith("GET ")] == []


async def test_an_image_in_use_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"DELETE images/moat/debian:1": (409, {"message": "image is being used"})}
    async with fake_engine(tmp_path, monkeypatch, answers):
        with pytest.raises(SandboxFailed, match="being used"):
            await DockerImages(has_door=True).remove("moat/debian:1")


async def test_what_the_engine_cannot_pull_is_told_as_it_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"POST images/create": (404, {"message": "pull access denied"})}
    async with fake_engine(tmp_path, monkeypatch, answers) as engine:
        with pytest.raises(SandboxFailed, match="docker could not pull mine/pg:1: pull access denied") as caught:
            await DockerImages(has_door=True).pull("mine/pg:1", lambda _: None)

    assert caught.value.hint == "run: docker pull mine/pg:1"
    assert engine.queries["POST images/create"]["fromImage"] == "mine/pg:1"


async def test_how_a_pull_goes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    answers = {"POST images/create": (200, {"status": "Status: Image is up to date"})}
    async with fake_engine(tmp_path, monkeypatch, answers):
        await DockerImages(has_door=True).pull("mine/pg:1", told.append)

    assert told == ["Status: Image is up to date"]
