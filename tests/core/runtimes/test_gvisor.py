"""The gvisor runtime is docker's with less to promise. Real runs: tests/integration/test_gvisor.py."""

from __future__ import annotations

import subprocess
import sys

from moat.runtimes.detect import AUTOMATIC
from moat.runtimes.docker import Docker
from moat.runtimes.gvisor import Gvisor


def test_it_has_no_door_whatever_is_set() -> None:
    assert (Gvisor.door, Gvisor().has_door(), Docker.door) == (False, False, True)


def test_it_is_taken_only_when_it_is_named() -> None:
    assert Gvisor.name not in AUTOMATIC


def test_images_are_made_by_docker_behind_its_door() -> None:
    assert Gvisor().images() == Docker().images()


def test_listing_it_loads_no_client_library() -> None:
    program = "import sys, moat.runtimes.gvisor; sys.exit('aiodocker' in sys.modules or 'aiohttp' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
