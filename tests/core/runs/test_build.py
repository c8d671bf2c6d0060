"""The steps of a build, what it registers, and what it says of its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from moat.api.errors import SandboxFailed
from moat.api.images import BuildOrder, BuiltImage, Images
from moat.api.runs import NetworkPolicy
from moat.api.runtimes import DoorTicket
from moat.config.dependencies import checked_dependencies
from moat.daemon.protocol import RegisterRequest, RegisterResponse, SetupRequest, SetupResponse
from moat.net.rules import parse_rule
from moat.paths import Home
from moat.runs.build import Builder, Lines
from moat.runs.recipe import make_recipe

from core.runs.fakes import FakeClient
from core.runs.plans import a_setup

RECIPE = make_recipe(checked_dependencies(["rust"]), "debian", "sha256:a")
POLICY = NetworkPolicy("strict", ("a.example",), (parse_rule("deny DELETE *"),))


class Client(FakeClient):
    registered: RegisterRequest | None = None
    asked: SetupRequest | None = None

    def setup(self, request: SetupRequest) -> SetupResponse:
        self.asked = request
        return a_setup()

    def register(self, request: RegisterRequest) -> RegisterResponse:
        self.registered = request
        return super().register(request)


class FakeImages(Images):
    """Says some lines and ends with a code."""

    def __init__(self, told: list[str], *, code: int = 0, failure: Exception | None = None) -> None:
        self.told, self.code, self.failure = told, code, failure
        self.there: set[str] = set()
        self.order: BuildOrder | None = None
        self.files: dict[str, str] = {}

    async def identify(self, image: str) -> str:
        return f"sha256:{image}" if image in self.there else ""

    async def build(
        self,
        order: BuildOrder,
        ticket: DoorTicket,
        created: Callable[[str], Awaitable[None]],
        told: Callable[[bytes], None],
    ) -> int:
        self.order = order
        self.files = {mount.target: mount.source.read_text() for mount in order.mounts}
        self.told.append("build")
        await created("box-1")
        told(b"==> rust\nworking\nno such package\n")
        if self.failure is not None:
            raise self.failure
        return self.code

    async def built(self) -> tuple[BuiltImage, ...]:
        return ()

    async def remove(self, tag: str) -> None:
        self.there.discard(tag)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "moat")


def build(home: Home, images: FakeImages, said: list[str] | None = None) -> tuple[bool, Client]:
    client = Client(home, images.told)
    lines: list[str] = [] if said is None else said
    return Builder(RECIPE, images, POLICY, "docker", lines.append).ensure(home, client), client


def test_a_build_is_a_run_without_grants_under_the_runs_policy(home: Home) -> None:
    images = FakeImages([])

    has_built, client = build(home, images)

    name = f"image-{RECIPE.tag.partition(':')[2]}"
    assert has_built
    assert images.told == [f"register {name}", "build", "created box-1", "end 0"]
    assert client.asked == SetupRequest()
    assert client.registered is not None
    assert (client.registered.grants, client.registered.needs_door) == ((), True)
    assert client.registered.network_policy == "strict"
    assert client.registered.network_allow == ("a.example",)
    assert client.registered.network_rules == ("deny DELETE *",)


def test_the_files_of_a_build_are_there_for_it_and_gone_after_it(home: Home) -> None:
    images = FakeImages([])

    build(home, images)

    assert images.order is not None
    assert images.order.argv == ("/bin/sh", "/dev/moat/build")
    assert images.files["/dev/moat/build"].endswith(RECIPE.text)
    assert all(mount.read_only for mount in images.order.mounts)
    assert not home.inside(images.order.run_id).exists()


def test_an_image_that_is_there_by_now_is_not_built_again(home: Home) -> None:
    images = FakeImages([])
    images.there.add(RECIPE.tag)

    assert build(home, images)[0] is False
    assert images.told == []


def test_a_failure_names_the_step_and_what_was_said_last(home: Home) -> None:
    images, said = FakeImages([], code=100), list[str]()

    with pytest.raises(SandboxFailed, match=r"at rust \(exit 100\): no such package"):
        build(home, images, said)

    assert said == ["==> rust", "working", "no such package"]
    assert images.told[-1] == "end 100"


def test_a_build_that_is_lost_is_ended_too(home: Home) -> None:
    images = FakeImages([], failure=SandboxFailed("the gate is gone"))

    with pytest.raises(SandboxFailed, match="the gate is gone"):
        build(home, images)

    assert images.told[-1] == "end 1"


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"a", b"b\nc\n"], ["ab", "c"]),
        ([b"10%\r50%\r100%\r\nx\n"], ["100%", "x"]),
        ([b"\xff\n\n  \n"], ["\ufffd"]),
        ([b"x" * 70_000, b"\n"], ["x" * 65_536]),
    ],
)
def test_output_is_told_in_whole_lines(pieces: list[bytes], lines: list[str]) -> None:
    told: list[str] = []
    taking = Lines(told.append)

    for piece in pieces:
        taking.take(piece)

    assert told == lines


def test_a_last_line_without_an_end_is_told_with_the_failure() -> None:
    told: list[str] = []
    taking = Lines(told.append)
    taking.take(b"==> a\n==> b\nodd")

    assert "at b (exit 3): odd" in taking.failure(3).problem
    assert told == ["==> a", "==> b", "odd"]
