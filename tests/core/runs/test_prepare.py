from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.container import Limits
from moat.api.errors import GrantMissing, RuntimeUnavailable, UsageError
from moat.api.images import Images
from moat.api.runs import RunSpec
from moat.api.runtimes import Readiness
from moat.config.services import known_service
from moat.daemon.protocol import SetupRequest, SetupResponse
from moat.paths import Home
from moat.runs import prepare as module
from moat.runs.prepare import prepare
from moat.runtimes.detect import Begun

from core.runs.fakes import FakeClient, FakeRuntime
from core.runs.plans import a_setup
from core.runs.test_build import FakeImages


class Imaging(FakeRuntime):
    """Has images, by name and digest."""

    def __init__(self, there: dict[str, str]) -> None:
        super().__init__([])
        self.there = there

    async def readiness(self, image: str) -> Readiness:
        return Readiness(True, "always", "" if image in self.there else f"run: fetch {image}")

    def images(self) -> Images:
        class Known(FakeImages):
            async def identify(this, image: str) -> str:  # self is the runtime
                return self.there.get(image, "")

        return Known([])


class Client(FakeClient):
    def setup(self, request: SetupRequest) -> SetupResponse:
        if "absent" in request.grants:
            raise GrantMissing("missing grant: absent", hint="run: moat grant absent")
        return a_setup()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Home]:
    """Count the daemons that are asked for."""
    homes: list[Home] = []

    def ensure_running(home: Home) -> FakeClient:
        homes.append(home)
        return Client(home, [])

    monkeypatch.setattr(module, "ensure_running", ensure_running)
    monkeypatch.setattr(module, "running", lambda home: None)
    return homes


def a_spec(tmp_path: Path, **more: object) -> RunSpec:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return RunSpec(work, ("true",), **more)  # type: ignore[arg-type] # whatever the test wants


def test_a_run_is_prepared_in_the_runtime_that_was_named(tmp_path: Path, started: list[Home]) -> None:
    home = Home(tmp_path / "moat")

    prepared = prepare(a_spec(tmp_path, runtime="fake"), home, [FakeRuntime([])], {}, (24, 80))

    assert prepared.runtime.name == prepared.plan.registration.runtime == "fake"
    assert prepared.plan.sandbox.terminal == (24, 80)
    assert started == [home]


def test_nothing_is_started_for_a_runtime_that_nobody_has(tmp_path: Path, started: list[Home]) -> None:
    with pytest.raises(UsageError, match="podman"):
        prepare(a_spec(tmp_path, runtime="podman"), Home(tmp_path / "moat"), [FakeRuntime([])], {})

    assert started == []


def test_a_missing_grant_ends_it_before_anything_is_registered(tmp_path: Path, started: list[Home]) -> None:
    runtime = FakeRuntime([])

    with pytest.raises(GrantMissing):
        prepare(a_spec(tmp_path, runtime="fake", grants=("absent",)), Home(tmp_path / "moat"), [runtime], {})

    assert runtime.told == []


def test_limits_that_the_runtime_cannot_hold_are_refused_before_anything_is_there(
    tmp_path: Path, started: list[Home]
) -> None:
    runtime, limits = FakeRuntime([]), Limits(memory_bytes=1 << 30, ulimits={"core": (0, 0)})

    with pytest.raises(RuntimeUnavailable, match=r"fake cannot hold .* memory, ulimits\.core") as refusal:
        prepare(a_spec(tmp_path, runtime="fake", limits=limits), Home(tmp_path / "moat"), [runtime], {})

    assert "--runtime docker" in refusal.value.hint
    assert (started, runtime.told) == ([], [])


def test_dependencies_make_an_image_of_the_runs_own(tmp_path: Path, started: list[Home]) -> None:
    home, there = Home(tmp_path / "moat"), {"debian": "sha256:a"}
    spec = a_spec(tmp_path, runtime="fake", image="debian", dependencies=("rust",))

    before = prepare(spec, home, [Imaging(there)], {})
    assert before.recipe is not None
    there[before.recipe.tag] = "sha256:b"
    after = prepare(spec, home, [Imaging(there)], {})

    assert (before.is_built, after.is_built) == (False, True)
    assert (before.recipe.base, before.recipe.base_id) == ("debian", "sha256:a")
    assert after.recipe == before.recipe
    assert prepare(a_spec(tmp_path, runtime="fake"), home, [Imaging(there)], {}).recipe is None


def test_dependencies_are_refused_where_there_are_no_images(tmp_path: Path, started: list[Home]) -> None:
    spec = a_spec(tmp_path, runtime="fake", dependencies=("rust",))

    with pytest.raises(RuntimeUnavailable, match="the runtime fake has none") as refusal:
        prepare(spec, Home(tmp_path / "moat"), [FakeRuntime([])], {})
    with pytest.raises(RuntimeUnavailable, match="fake has no image absent") as absent:
        prepare(replace(spec, image="absent"), Home(tmp_path / "moat"), [Imaging({})], {})

    assert "--runtime docker" in refusal.value.hint
    assert absent.value.hint == "run: fetch absent"
    with pytest.raises(RuntimeUnavailable, match=r"hooks\.post_build need an image"):
        prepare(a_spec(tmp_path, runtime="fake", post_build="id"), Home(tmp_path / "moat"), [FakeRuntime([])], {})
    assert started == []


def test_of_the_usual_runtimes_one_with_images_is_taken(tmp_path: Path, started: list[Home]) -> None:
    docker, bubblewrap = Imaging({"debian": "sha256:a"}), FakeRuntime([])
    docker.name, bubblewrap.name = "bubblewrap", "docker"  # type: ignore[misc] # so that the other would come first
    spec = a_spec(tmp_path, image="debian", dependencies=("rust",))

    assert prepare(spec, Home(tmp_path / "moat"), [docker, bubblewrap], {}).runtime is docker


class Starting(Imaging):
    """Starts images, and is ready only for those that are there."""

    needs_image = True

    async def readiness(self, image: str) -> Readiness:
        return Readiness(image in self.there, f"has no image {image}", f"run: fetch {image}")


@pytest.mark.parametrize("origin", ["--image", "moat.yaml"])
@pytest.mark.parametrize("has_begun", [True, False])
def test_an_image_that_is_asked_for_is_never_passed_over(
    tmp_path: Path, started: list[Home], monkeypatch: pytest.MonkeyPatch, origin: str, has_begun: bool
) -> None:
    home, engine, sandbox = Home(tmp_path / "moat"), Starting({"debian": "sha256:a"}), FakeRuntime([])
    engine.name, sandbox.name = "docker", "bubblewrap"  # type: ignore[misc] # the usual ones
    spec = a_spec(tmp_path, image="debain", origins={"image": origin})
    monkeypatch.setattr(module, "running", lambda home: Client(home, []))

    with Begun() as begun, pytest.raises(RuntimeUnavailable, match="docker: has no image debain") as absent:
        prepare(spec, home, [engine, sandbox], {}, None, begun if has_begun else None)
    with Begun() as begun, pytest.raises(RuntimeUnavailable, match="the runtime bubblewrap starts none") as refusal:
        prepare(replace(spec, runtime="bubblewrap"), home, [engine, sandbox], {}, None, begun if has_begun else None)

    assert absent.value.hint == "run: fetch debain"
    assert ("--image" in refusal.value.hint) is (origin == "--image")
    assert (sandbox.told, started) == ([], [])


@pytest.mark.parametrize("origin", ["config.yaml", "default"])
def test_an_image_for_whenever_there_is_one_does_not_keep_from_another_runtime(
    tmp_path: Path, started: list[Home], origin: str
) -> None:
    engine, sandbox = Starting({}), FakeRuntime([])
    engine.name, sandbox.name = "docker", "bubblewrap"  # type: ignore[misc] # the usual ones
    spec = a_spec(tmp_path, image="mine", origins={"image": origin})

    assert prepare(spec, Home(tmp_path / "moat"), [engine, sandbox], {}).runtime is sandbox


class Serving(Imaging):
    def holds_services(self) -> bool:
        return True


def test_images_of_services_that_are_absent_are_known(tmp_path: Path, started: list[Home]) -> None:
    services = (known_service("postgres@16", "db"), known_service("redis", "cache"))
    spec = a_spec(tmp_path, runtime="fake", image="debian", services=services)

    made = prepare(spec, Home(tmp_path / "moat"), [Serving({"redis:7": "sha256:a"})], {})

    assert made.absent == ("postgres:16",)
    assert len({each.secrets for each in made.plan.sandbox.services}) == 2
    assert prepare(a_spec(tmp_path, runtime="fake"), Home(tmp_path / "moat"), [Imaging({})], {}).absent == ()


def test_services_are_refused_where_none_are_held(tmp_path: Path, started: list[Home]) -> None:
    spec = a_spec(tmp_path, runtime="fake", services=(known_service("redis", "cache"),))

    for runtime in (FakeRuntime([]), Imaging({})):
        with pytest.raises(RuntimeUnavailable, match=r"the runtime fake holds no services here \(cache\)") as refusal:
            prepare(spec, Home(tmp_path / "moat"), [runtime], {})

    assert "--host-port" in refusal.value.hint
    assert started == []


def test_of_the_usual_runtimes_one_with_services_is_taken(tmp_path: Path, started: list[Home]) -> None:
    docker, bubblewrap = Serving({}), FakeRuntime([])
    docker.name, bubblewrap.name = "bubblewrap", "docker"  # type: ignore[misc] # so that the other would come first
    spec = a_spec(tmp_path, services=(known_service("redis", "cache"),))

    assert prepare(spec, Home(tmp_path / "moat"), [docker, bubblewrap], {}).runtime is docker


@pytest.mark.parametrize("is_there", [True, False])
def test_beside_a_daemon_that_is_there_a_runtime_that_begins_is_waited_for_last(
    tmp_path: Path, started: list[Home], monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    told: list[str] = []

    class Slow(FakeRuntime):
        async def readiness(self, image: str) -> Readiness:
            told.append("ready")
            return await super().readiness(image)

    class Asked(Client):
        def setup(self, request: SetupRequest) -> SetupResponse:
            told.append("set up")
            return super().setup(request)

    home = Home(tmp_path / "moat")
    monkeypatch.setattr(module, "running", lambda home: Asked(home, []) if is_there else None)
    with Begun() as begun:
        prepared = prepare(a_spec(tmp_path, runtime="fake"), home, [Slow([])], {}, None, begun)

    assert prepared.plan.registration.runtime == "fake"
    assert (told, started) == ((["set up", "ready"], []) if is_there else (["ready"], [home]))


@pytest.mark.parametrize("is_proved", [True, False])
def test_a_runtime_that_has_proved_itself_is_not_asked(
    tmp_path: Path, started: list[Home], monkeypatch: pytest.MonkeyPatch, is_proved: bool
) -> None:
    asked: list[str] = []

    class Proved(FakeRuntime):
        def is_proved(self) -> bool:
            return is_proved

        async def readiness(self, image: str) -> Readiness:
            asked.append(image)
            return await super().readiness(image)

    monkeypatch.setattr(module, "running", lambda home: Client(home, []))
    with Begun() as begun:
        prepare(a_spec(tmp_path, runtime="fake"), Home(tmp_path / "moat"), [Proved([])], {}, None, begun)

    assert bool(asked) is not is_proved
    assert started == []
