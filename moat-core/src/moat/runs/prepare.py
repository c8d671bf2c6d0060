"""From what was asked to what will be done: a runtime is chosen, the daemon is there, the plan is made.

Nothing of the run exists yet, so a refusal leaves nothing behind but a daemon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from moat.api.errors import RuntimeUnavailable
from moat.api.light import dataclass
from moat.api.runs import RunSpec
from moat.api.runtimes import Runtime
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import ensure_running, running
from moat.paths import Home
from moat.runs.collect import collect
from moat.runs.merge import FILE, IMAGE_OPTION
from moat.runs.plan import Facts, RunPlan, plan
from moat.runtimes.detect import Begun, choose

if TYPE_CHECKING:
    from moat.runs.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can be launched. recipe: of its image, if it has one of its own. is_built: whether that is there.

    absent: images of services that the engine does not have yet.
    """

    facts: Facts
    plan: RunPlan
    runtime: Runtime
    client: DaemonClient
    recipe: Recipe | None = None
    is_built: bool = True
    absent: tuple[str, ...] = ()


def prepare(
    spec: RunSpec,
    home: Home,
    runtimes: Sequence[Runtime],
    env: Mapping[str, str],
    terminal: tuple[int, int] | None = None,
    begun: Begun | None = None,
) -> Prepared:
    """Return the run that spec asks for, ready to launch. Blocking; call it outside of an event loop.

    env: the CLI's environment, of which only how output looks is passed on. begun: for a launch by this process.
    Raises RuntimeUnavailable, DaemonError, GrantMissing and what else the daemon refuses, UsageError, PlanConflict.
    """
    early = None if begun is None else _planned_early(spec, home, runtimes, env, terminal, begun)
    if early is not None:
        return early
    import asyncio

    runtime = asyncio.run(_chosen(spec, runtimes, begun))
    recipe, is_built = asyncio.run(look_up(spec, runtime))
    absent = asyncio.run(_absent(spec, runtime)) if spec.services else ()
    client = ensure_running(home)
    facts = collect(spec, home, client, runtime, env, terminal)
    wanted = spec if recipe is None else replace(spec, image=recipe.tag)
    return Prepared(facts, plan(wanted, facts), runtime, client, recipe, is_built, absent)


def _planned_early(
    spec: RunSpec,
    home: Home,
    runtimes: Sequence[Runtime],
    env: Mapping[str, str],
    terminal: tuple[int, int] | None,
    begun: Begun,
) -> Prepared | None:
    """Plan for the runtime that is named, while that has not told yet whether it is ready: it has begun.

    None where that must be known first: to choose one, to look for its images, or to start a daemon.
    """
    named = next((each for each in runtimes if each.name == spec.runtime), None)
    if named is None or needs_image(spec) or spec.services or (client := running(home)) is None:
        return None
    _check_image(spec, named)
    facts = collect(spec, home, client, named, env, terminal)
    made = plan(spec, facts)
    if spec.limits.names() or not named.is_proved():
        import asyncio  # not at the top: it takes long to load, and the run can be registered without

        named = asyncio.run(_chosen(spec, runtimes, begun))
    return Prepared(facts, made, named, client)


def needs_image(spec: RunSpec) -> bool:
    """Whether spec asks for an image of its own."""
    return bool(spec.dependencies or spec.post_build)


def candidates(spec: RunSpec, runtimes: Sequence[Runtime]) -> Sequence[Runtime]:
    """Return the runtimes that could hold the run; all where one is named, since that is refused by itself."""
    if spec.runtime:
        return runtimes
    if needs_image(spec):
        runtimes = [each for each in runtimes if each.images() is not None]
    if _image_is_asked_for(spec):
        runtimes = [each for each in runtimes if each.needs_image] or runtimes
    if spec.services:
        runtimes = [each for each in runtimes if each.holds_services()] or runtimes
    return runtimes


async def look_up(spec: RunSpec, runtime: Runtime) -> tuple[Recipe | None, bool]:
    """Return the recipe of the image that spec needs, and whether the image is there. None: the base image will do.

    Raises RuntimeUnavailable where the runtime has no images, or not the base image.
    """
    if not needs_image(spec):
        return None, True
    images = runtime.images()
    if images is None:
        problem = f"dependencies and hooks.post_build need an image, and the runtime {runtime.name} has none"
        hint = "use --runtime docker, or take them out of moat.yaml and install what is needed on this machine"
        raise RuntimeUnavailable(problem, hint=hint)
    from moat.config.dependencies import checked_dependencies
    from moat.runs.recipe import make_recipe

    base_id = await images.identify(spec.image)
    if not base_id:
        absent = await runtime.readiness(spec.image)
        raise RuntimeUnavailable(f"the runtime {runtime.name} has no image {spec.image}", hint=absent.hint)
    recipe = make_recipe(checked_dependencies(spec.dependencies), spec.image, base_id, spec.post_build)
    return recipe, bool(await images.identify(recipe.tag))


async def _absent(spec: RunSpec, runtime: Runtime) -> tuple[str, ...]:
    """Return the images of services that are not there. Raises RuntimeUnavailable where none can be held."""
    images = runtime.images()
    if not runtime.holds_services() or images is None:
        names = ", ".join(service.name for service in spec.services)
        hint = "use docker or podman on this machine, or start what you need yourself and open its port: --host-port"
        raise RuntimeUnavailable(f"the runtime {runtime.name} holds no services here ({names})", hint=hint)
    wanted = dict.fromkeys(service.image for service in spec.services)
    return tuple([image for image in wanted if not await images.identify(image)])


async def _chosen(spec: RunSpec, runtimes: Sequence[Runtime], begun: Begun | None) -> Runtime:
    """Return the runtime that holds the run. Raises RuntimeUnavailable when it could not do so as it is asked to."""
    runtime = await choose(candidates(spec, runtimes), spec.runtime, spec.image, begun)
    _check_image(spec, runtime)
    if unenforced := await runtime.unenforced(spec.limits):
        problem = f"the runtime {runtime.name} cannot hold a run to a limit of {', '.join(unenforced)} here"
        other = "take it out of container in moat.yaml"
        hint = f"use --runtime docker, or {other}" if runtime.name != "docker" else other
        raise RuntimeUnavailable(problem, hint=hint)
    return runtime


def _image_is_asked_for(spec: RunSpec) -> bool:
    """Whether the run is to be in this very image. That of config.yaml is for when there is one at all."""
    return spec.origins.get("image") in (IMAGE_OPTION, FILE)


def _check_image(spec: RunSpec, runtime: Runtime) -> None:
    """Raise RuntimeUnavailable where an image is asked for that would not be looked at: the run had other files."""
    if _image_is_asked_for(spec) and not runtime.needs_image:
        who, what = (FILE, "base_image") if spec.origins["image"] == FILE else ("the command line", IMAGE_OPTION)
        problem = f"{who} asks for the image {spec.image}, and the runtime {runtime.name} starts none"
        raise RuntimeUnavailable(problem, hint=f"use --runtime docker, or leave out {what}")
