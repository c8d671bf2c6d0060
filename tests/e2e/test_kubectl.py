"""The real kubectl in a run, unconfigured but for the server's address: what it reads, and what it upgrades for.

A stand-in API server wants the grant's credential, which nobody inside has. It speaks either websockets, as kubectl
prefers since 1.31, or only SPDY/3.1, upon which kubectl falls back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from moat.proxy.scrub import mask
from support.host_programs import is_shown, shown
from support.kube_api import HOST, LOG_LINES, KubeApi, running_kube
from support.places import ROOT_PLACES, Place, docker_answers
from support.services import Services

from e2e.conftest import SECRET, make_place
from e2e.test_clients import has

KUBECTL = f"kubectl --server https://{HOST} --token placeholder"


@pytest.fixture(scope="module", params=["websocket", "spdy"])
def api(request: pytest.FixtureRequest, services: Services) -> Iterator[KubeApi]:
    with running_kube(KubeApi(speaks=request.param, ca=services.ca)) as running:
        yield running


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, api: KubeApi, services: Services, inside: Path) -> Iterator[Place]:
    """A place in which a host that gets the token is the API server, which demands it."""
    runtime, user = request.param
    if runtime == "docker" and not docker_answers():
        pytest.skip("no Docker engine answers here, or it has no debian:bookworm-slim")
    with make_place(runtime, user, services, inside, {HOST: f"127.0.0.1:{api.port}"}) as made:
        api.secret = f"{SECRET}-{runtime}-root"
        if not has("kubectl", made) and not is_shown("kubectl", made):
            pytest.skip("this machine has no kubectl")
        yield made


def kubectl(place: Place, line: str, workspace: Path | None = None, input: bytes = b"") -> str:
    api_line = f'kubectl() {{ command {KUBECTL} "$@"; }}; {line}'
    return place.ok("bash", "-c", api_line, flags=shown(place), workspace=workspace, input=input)


@ROOT_PLACES
def test_kubectl_gets_and_follows_logs(place: Place, api: KubeApi) -> None:
    said = kubectl(place, "kubectl get pods --no-headers; kubectl logs -f web").splitlines()

    assert said[0].startswith("web ")
    assert said[1:] == [f"line {number}" for number in range(LOG_LINES)]


@ROOT_PLACES
def test_kubectl_executes_with_standard_input_and_an_exit_code(place: Place, api: KubeApi) -> None:
    fed = "echo 'through the pod' | kubectl exec -i web -- cat"
    said = kubectl(place, f"{fed}; kubectl exec web -- sh -c 'echo out; echo err >&2; exit 7' 2>err; echo $?; cat err")

    assert said.splitlines()[:4] == ["through the pod", "out", "7", "err"]
    assert _came(api, "exec")


@ROOT_PLACES
def test_a_credential_that_a_pod_repeats_is_not_seen(place: Place, api: KubeApi, tmp_path: Path) -> None:
    (tmp_path / "told").write_text(f"<{api.secret}>" * 3)

    assert kubectl(place, f"kubectl exec web -- cat {tmp_path}/told") == f"<{mask(len(api.secret)).decode()}>" * 3


@ROOT_PLACES
def test_kubectl_copies_both_ways(place: Place, api: KubeApi, tmp_path: Path) -> None:
    workspace = place.workspace()
    content = os.urandom(300_000)
    (workspace / "sent").write_bytes(content)

    kubectl(place, f"kubectl cp sent web:{tmp_path}/there && kubectl cp web:{tmp_path}/there back", workspace)

    assert (tmp_path / "there").read_bytes() == content
    assert (workspace / "back").read_bytes() == content


@ROOT_PLACES
def test_kubectl_forwards_a_port(place: Place, api: KubeApi) -> None:
    line = (
        "kubectl port-forward pod/web 18080:80 > told & forwarding=$!; "
        "for try in $(seq 300); do grep -q Forwarding told && break; sleep 0.1; done; "
        "curl -sS --noproxy '*' http://127.0.0.1:18080/; kill $forwarding"
    )

    assert kubectl(place, line) == "from the pod"
    assert _came(api, "portforward")


def _came(api: KubeApi, what: str) -> bool:
    """Whether streams came as the server speaks them, after kubectl tried what it does not."""
    ways = [line.split(" ")[2:] for line in api.log if line.split(" ")[1].endswith(f"/{what}")]
    fell_back = ["websocket", "400"] in ways
    return ["spdy/3.1", "101"] in ways and fell_back if api.speaks == "spdy" else ["websocket", "101"] in ways
