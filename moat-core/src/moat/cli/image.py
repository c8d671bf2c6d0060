"""`moat image`: the images that are made of `dependencies` in moat.yaml, which `moat run` builds on first use."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from moat.api.errors import MoatError, UsageError
from moat.api.images import BuiltImage, Images
from moat.api.runs import NetworkPolicy
from moat.cli.asking import agreed, ask
from moat.cli.clean import shown_size
from moat.cli.output import say, show, show_json, show_table
from moat.config.settings import load_settings
from moat.paths import Home, current_folder, find_home
from moat.plugins.manager import Plugins
from moat.runs.build import Builder
from moat.runs.merge import Options
from moat.runs.prepare import Prepared, needs_image, prepare


@click.group()
def image() -> None:
    """Build, list and remove the images of `dependencies`. `moat run` builds what it needs by itself."""


@image.command()
@click.argument("workspace", required=False, type=click.Path(path_type=Path), metavar="[WORKSPACE]")
@click.option("--allow-host", "allowed", multiple=True, metavar="H", help="Let the build reach this host in strict.")
@click.option("-y", "--yes", is_flag=True, help="Grant what moat.yaml asks for, and remember it.")
def build(workspace: Path | None, allowed: tuple[str, ...], yes: bool) -> None:
    """Build the image of a workspace's moat.yaml, unless it is there; prints its tag."""
    home, folder = find_home(), current_folder() / (workspace or "")
    options = Options(folder, command=("true",), allowed=allowed)
    plugins = Plugins.load()
    runtimes = plugins.runtimes()
    asked = ask(options, load_settings(home), runtimes, os.environ, ignores_file=False, sources=plugins)
    if not needs_image(asked.spec):
        raise UsageError(f"{folder} asks for no image of its own", hint="add dependencies to its moat.yaml")
    spec = agreed(asked, home, os.environ, is_given=yes)
    prepared = prepare(spec, home, runtimes, os.environ)
    build_image(prepared, spec.policy, home)
    show(prepared.plan.sandbox.image)


@image.command("list")
@click.option("--json", "in_json", is_flag=True, help="As JSON.")
def list_images(in_json: bool) -> None:
    """List the images that were built here, newest first."""
    found = [each for images in _all() for each in asyncio.run(images.built())]
    if in_json:
        show_json([asdict(each) for each in found])
    elif found:
        show_table(("IMAGE", "FROM", "BUILT", "SIZE", "WITH"), [_row(each) for each in found])
    else:
        show("no images yet; moat run builds one where moat.yaml has dependencies")


@image.command()
@click.argument("tags", metavar="IMAGE...", nargs=-1, required=True)
def remove(tags: tuple[str, ...]) -> None:
    """Remove images that were built here; the next run that needs one builds it again."""
    owners: dict[str, list[Images]] = {}
    for images in _all():
        for built in asyncio.run(images.built()):
            owners.setdefault(built.tag, []).append(images)
    for tag in tags:
        if tag not in owners:
            raise UsageError(f"{tag} was not built here", hint="run: moat image list")
    for tag in tags:
        for images in owners[tag]:
            asyncio.run(images.remove(tag))
        show(tag)


def build_image(prepared: Prepared, policy: NetworkPolicy, home: Home, estimate: str = "") -> None:
    """Build the image that a prepared run needs, telling how it goes. Raises MoatError when there is none after it.

    estimate: what it takes, in words.
    """
    recipe, images = prepared.recipe, prepared.runtime.images()
    if recipe is None or images is None or prepared.is_built:
        return
    say(f"moat: building {recipe.tag} from {recipe.base}, once{estimate and f': {estimate}'}")
    builder = Builder(recipe, images, policy, prepared.runtime.name, lambda line: say(f"  {line}"))
    if builder.ensure(home, prepared.client):
        say(f"moat: built {recipe.tag}")


def _all() -> Sequence[Images]:
    """Return what makes images in the runtimes that are ready, each once. Raises MoatError where none is."""
    found, absent = [], []
    for runtime in Plugins.load().runtimes():
        if (images := runtime.images()) is None:
            continue
        ready = asyncio.run(runtime.readiness(""))
        if ready.is_ready:
            found.append(images)
        else:
            absent.append((runtime.name, ready))
    if not found and absent:
        name, ready = absent[0]
        raise MoatError(f"the runtime {name} cannot be asked: {ready.detail}", hint=ready.hint)
    return list(dict.fromkeys(found))


def _row(image: BuiltImage) -> tuple[str, ...]:
    return (image.tag, image.base, image.created[:16].replace("T", " "), shown_size(image.size),
            " ".join(image.dependencies))  # fmt: skip
