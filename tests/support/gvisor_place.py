"""A docker engine of the tests' own that knows runsc, with a tiny image: the machine's own engine is left as it is."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.installation import end, eventually
from support.podman_place import TINY, tiny_image

# Debian's runsc asks the kernel in a way that newer kernels do not answer, unless it uses the container's own network.
ARGUMENTS = ["--network=host", "--ignore-cgroups"]
ALONE = "ip link set lo up && exec dockerd --config-file"


@contextlib.contextmanager
def engine_with_runsc() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Start the engine in a network of its own, where it cannot take the other's bridge away.

    Yields its DOCKER_HOST, and the words that put a command into that network.
    """
    root = Path(tempfile.mkdtemp(prefix="moat-gvisor-"))
    address = f"unix://{root}/docker.sock"
    settings = {
        "runtimes": {"runsc": {"path": shutil.which("runsc") or "runsc", "runtimeArgs": ARGUMENTS}},
        "bridge": "none", "iptables": False, "ip6tables": False, "ip-forward": False,
        "data-root": f"{root}/data", "exec-root": f"{root}/exec", "pidfile": f"{root}/pid", "hosts": [address],
    }  # fmt: skip
    (root / "daemon.json").write_text(json.dumps(settings))
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", f"{ALONE} {root}/daemon.json"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        eventually("the engine answers", lambda: docker_at(address, "info").returncode == 0)
        loaded = docker_at(address, "import", "-", TINY, input=tiny_image())
        assert loaded.returncode == 0, loaded.stderr
        yield address, ("nsenter", f"--target={process.pid}", "--net", "--")
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        end(process)
        shutil.rmtree(root, ignore_errors=True)


def docker_at(address: str, *arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the docker client against an engine."""
    return subprocess.run(
        ["docker", "--host", address, *arguments], input=input, capture_output=True, check=False, timeout=60
    )
