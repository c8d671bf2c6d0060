"""What a run leaves in a volume the next run of the same workspace finds, in either runtime, and no other run does."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.installation import Installation, installation
from support.places import docker_answers

pytestmark = pytest.mark.timeout(120)
DOCKER = (
    pytest.mark.docker,
    pytest.mark.skipif(not docker_answers(), reason="no container engine with the image"),
)
RUNTIMES = [pytest.param("docker", marks=DOCKER), pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)]
VOLUMES = {"cache": "/home/moat/.cache", "modules": "/workspace/vendor/modules"}


@pytest.fixture(scope="module")
def made() -> Iterator[Installation]:
    with installation() as made:
        yield made


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_volume_outlives_a_run(made: Installation, runtime: str) -> None:
    name = f"volumes-{runtime}"
    work = made.file(f"{name}/moat.yaml", json.dumps({"volumes": VOLUMES})).parent
    other = made.file(f"{name}-other/moat.yaml", json.dumps({"volumes": VOLUMES})).parent
    keep = (
        "cd ~/.cache && test -O . && mkdir a && echo kept > a/b && chmod 500 a && echo m > /workspace/vendor/modules/m"
    )
    env = {"MOAT_RUNTIME": runtime}

    made.ok("run", work, "--", "sh", "-c", keep, env=env)
    second = made.ok("run", work, "--copy", "--", "sh", "-c", "cat ~/.cache/a/b vendor/modules/m", env=env)
    third = made.ok(
        "run", other, "--volume", "more:/more", "--", "sh", "-c", "ls -A ~/.cache vendor/modules /more", env=env
    )

    assert second == "kept\nm\n"
    assert [line for line in third.split() if not line.endswith(":")] == []
    assert list((work / "vendor" / "modules").iterdir()) == []
    made.ok("volume", "remove", "cache", "modules", "--workspace", work, "--yes")
    assert made.run("run", work, "--", "test", "-e", "/home/moat/.cache/a", env=env).returncode == 1
