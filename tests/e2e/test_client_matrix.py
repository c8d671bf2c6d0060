"""Clients of many kinds, unconfigured: each fetches and sends, and the service sees the credential both times.

What is brought along runs in both sandboxes, and so does what can be shown in a container (support/host_programs.py).
Ruby, PHP and Perl run only where a run sees the host's /usr: their modules are looked for there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from moat.runs.trust import TRUST_STORE
from support.client_matrix import BODY, MATRIX, PLACE, Client
from support.host_programs import PROGRAMS, is_shown, libraries, shown
from support.image_registry import make_image
from support.inside import BROUGHT
from support.places import PLACES, ROOT_PLACES, Place

from e2e.test_clients import has

MOUNT = ("--mount", f"{BROUGHT}:{PLACE}:ro") if BROUGHT.exists() else ()
WAYS = {"connect": "proxy", "http": "proxy", "transparent": "address"}
SENT = hashlib.sha256(BODY.encode()).hexdigest()


@dataclass(frozen=True)
class Said:
    """What one client asked for, sent and printed."""

    get: str
    post: str
    output: str
    errors: str
    ways: frozenset[str]


@pytest.fixture(scope="module")
def said(place: Place) -> Mapping[str, Said]:
    """Run every client that is here in one run, two at a time; return what each said, by name."""
    workspace = place.workspace()
    made: dict[str, tuple[int, str, str]] = {}
    lines: list[str] = []
    for number, client in enumerate(client for client in MATRIX if is_here(client, place)):
        path = place.fresh_path(client.name.replace(":", ""))
        made[client.name] = (number, path, f"/upload{path}")
        lines.append(client.script(path, f"/upload{path}", number))
    halves = [f"( {'; '.join(lines[start::2])} ) &" for start in (0, 1) if lines[start::2]]
    arguments = place.arguments(
        "sh", "-c", "\n".join([*halves, "wait"]), flags=(*MOUNT, *shown(place)), workspace=workspace
    )
    done = place.installation.run(*arguments, timeout_s=110)
    assert done.returncode == 0, f"{done.stderr.decode()}\n{place.installation.logs()}"
    ways = _ways(place)
    return {
        name: Said(
            get,
            post,
            (workspace / f"{number}.out").read_text(),
            (workspace / f"{number}.err").read_text(),
            frozenset(ways.get(path, "") for path in (get, post)),
        )
        for name, (number, get, post) in made.items()
    }


def _ways(place: Place) -> dict[str, str]:
    """Return how each path that was asked for came to the proxy, as the trace says."""
    traces = (place.installation.home / ".moat" / "runs").glob("*/network.jsonl")
    records = [json.loads(line) for trace in traces for line in trace.read_text().splitlines()]
    return {record["path"]: WAYS[record["via"]] for record in records if record["outcome"] == "forwarded"}


@ROOT_PLACES
@pytest.mark.parametrize("client", [each for each in MATRIX if each.is_brought], ids=lambda client: client.name)
def test_a_client_of_a_language_fetches_and_sends_with_nothing_set_for_it(
    client: Client, place: Place, said: Mapping[str, Said]
) -> None:
    _check(client, place, said)


@ROOT_PLACES
@pytest.mark.parametrize("client", [each for each in MATRIX if each.needs in PROGRAMS], ids=lambda client: client.name)
def test_a_client_that_a_container_can_be_shown_does_too(
    client: Client, place: Place, said: Mapping[str, Said]
) -> None:
    _check(client, place, said)


@pytest.mark.parametrize("place", PLACES[:1], indirect=True)
@pytest.mark.parametrize(
    "client",
    [each for each in MATRIX if not each.is_brought and each.needs not in PROGRAMS],
    ids=lambda client: client.name,
)
def test_a_client_of_the_system_fetches_and_sends_with_nothing_set_for_it(
    client: Client, place: Place, said: Mapping[str, Said]
) -> None:
    _check(client, place, said)


@ROOT_PLACES
def test_what_the_user_tells_java_is_kept_beside_what_moat_tells_it(place: Place) -> None:
    if not has("java", place) and not is_shown("java", place):
        pytest.skip("this machine has no java")
    own = ("-e", "JAVA_TOOL_OPTIONS=-Dmine=kept -Dhttps.proxyPort=1")

    told = place.run("java", "-XshowSettings:properties", "-version", flags=(*own, *shown(place))).stderr.decode()

    properties = {line.strip() for line in told.splitlines()}
    assert {"mine = kept", "https.proxyPort = 19080", f"javax.net.ssl.trustStore = {TRUST_STORE}"} <= properties


@ROOT_PLACES
def test_skopeo_pushes_an_image_and_reads_it_back_without_a_login(place: Place) -> None:
    if not has("skopeo", place) and not is_shown("skopeo", place):
        pytest.skip("this machine has no skopeo")
    workspace = place.workspace()
    manifest = make_image(workspace / "image", workspace.name)
    image = f"docker://api.github.com/moat/sample:{workspace.name}"

    output = place.ok(
        "sh", "-ec",
        f"export {libraries(place)}; skopeo copy --quiet --insecure-policy dir:image {image} && "
        f"skopeo inspect --raw {image}",
        flags=shown(place),
        workspace=workspace,
    )  # fmt: skip

    assert output == manifest.decode()
    place.assert_spent("/v2/moat/sample/blobs/uploads/")
    place.assert_spent(f"/v2/moat/sample/manifests/{workspace.name}")


def _check(client: Client, place: Place, said: Mapping[str, Said]) -> None:
    if not is_here(client, place):
        pytest.skip(f"{client.name} is not here; run: scripts/clients.sh, or apt-get install it")
    found = said[client.name]

    assert found.get in found.output, found.errors
    assert SENT in found.output, found.errors
    place.assert_spent(found.get)
    place.assert_spent(found.post)
    assert {each.method for each in place.services.asked(found.post)} == {"POST"}
    assert found.ways == {client.way}


def is_here(client: Client, place: Place) -> bool:
    """Whether a client can be had inside."""
    if client.is_brought:
        return (BROUGHT / client.needs.removeprefix(f"{PLACE}/")).exists()
    return is_shown(client.needs, place) or has(client.needs, place)
