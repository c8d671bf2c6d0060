"""Fetches the images of a run's services before it begins, telling how that goes."""

from __future__ import annotations

import asyncio

from moat.cli.output import say
from moat.runs.prepare import Prepared


def fetch_images(prepared: Prepared) -> None:
    """Have the engine fetch what it lacks. Raises SandboxFailed for the first image that cannot be had."""
    images = prepared.runtime.images()
    if images is None:
        return
    for image in prepared.absent:
        say(f"moat: fetching {image}, once")
        asyncio.run(images.pull(image, lambda line: say(f"  {line}")))
