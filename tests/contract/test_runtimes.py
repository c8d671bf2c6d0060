"""Every runtime keeps the same promises, in real runs; what one of them cannot promise it says."""

from __future__ import annotations

import pytest
from moat.api import Runtime
from moat.plugins.manager import Plugins
from moat.runtimes.bubblewrap import Bubblewrap
from moat.runtimes.docker import Docker
from moat.runtimes.podman import Podman
from moat.runtimes.process import Process
from moat.testing import RuntimeContract
from support.docker_place import docker
from support.podman_place import podman


@pytest.mark.docker
@pytest.mark.timeout(120)
class TestDocker(RuntimeContract):
    runtime = Docker()
    added = frozenset({"PATH", "HOSTNAME", "TINI_KILL_PROCESS_GROUP"})  # the image's own PATH

    def remains(self, run_id: str) -> list[str]:
        of_this_run = ("--filter", f"label=moat.run={run_id}", "--format", "{{.ID}}")
        return [*docker("ps", "-a", *of_this_run).split(), *docker("network", "ls", *of_this_run).split()]


@pytest.mark.podman
@pytest.mark.timeout(120)
class TestPodman(RuntimeContract):
    runtime = Podman()
    added = frozenset({"PATH", "HOSTNAME", "TERM", "container"})  # the image's own PATH

    def remains(self, run_id: str) -> list[str]:
        of_this_run = ("--filter", f"label=moat.run={run_id}", "--format", "{{.ID}}")
        return [*podman("ps", "-a", *of_this_run).split(), *podman("network", "ls", *of_this_run).split()]


@pytest.mark.bubblewrap
@pytest.mark.timeout(120)
class TestBubblewrap(RuntimeContract):
    runtime = Bubblewrap()
    added = frozenset({"PWD"})


@pytest.mark.timeout(120)
class TestProcess(RuntimeContract):
    runtime = Process()


@pytest.mark.parametrize("runtime", Plugins.load().runtimes(), ids=lambda runtime: runtime.name)
def test_a_runtime_has_a_contract_test(runtime: Runtime) -> None:
    kept = {contract.runtime.name for contract in (TestDocker, TestPodman, TestBubblewrap, TestProcess)}
    assert (runtime.name in kept) == runtime.door, "without a door: tests/integration/test_gvisor.py"
