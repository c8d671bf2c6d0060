"""Ordinary programs work inside a run with a placeholder or nothing, while the service sees the real credential."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.inside import PLACE as INSIDE
from support.places import PLACES, Place, image_has

API = "https://api.github.com"
NOTHING_SET: Mapping[str, str] = {}
LIBRARIES = {"PYTHONPATH": f"{INSIDE}/lib"}


@dataclass(frozen=True)
class Client:
    """A program that fetches one URL and prints the answer. URL and PATH in command stand for what is fetched.

    needs: what must be there, a program or a file of the inside folder.
    """

    name: str
    needs: str
    command: str
    env: Mapping[str, str] = field(default_factory=dict)

    def script(self, path: str, number: int) -> str:
        """Return a shell line that fetches path and leaves what was printed in a file of that number."""
        command = self.command.replace("URL", API + path).replace("PATH ", path + " ")
        exports = "".join(f"export {name}={value}; " for name, value in self.env.items())
        return f"( {exports}{command} ) > {number}.out 2> {number}.err"


CLIENTS = (
    Client("curl", "curl", "curl -sS URL"),
    Client("curl with the placeholder", "curl", 'curl -sS -H "Authorization: Bearer $GH_TOKEN" URL'),
    Client("curl over HTTP 1.0", "curl", "curl -sS --http1.0 URL"),
    Client("curl that ignores the proxy", "curl", "curl -sS --noproxy '*' URL"),
    Client("wget", "wget", "wget -qO- URL"),
    Client("wget that ignores the proxy", "wget", "wget --no-proxy -qO- URL"),
    Client("Python urllib", "python3", f"python3 {INSIDE}/programs/with_urllib.py URL"),
    Client("Python http.client, which knows no proxy", "python3", f"python3 {INSIDE}/programs/with_http_client.py URL"),
    Client("Python requests", "python3", f"python3 {INSIDE}/programs/with_requests.py URL", LIBRARIES),
    Client("Python aiohttp without trust_env", "python3", f"python3 {INSIDE}/programs/with_aiohttp.py URL", LIBRARIES),
    Client("Node fetch, which knows no proxy", "node", f"node {INSIDE}/programs/fetch.mjs URL"),
    Client("Node https, which knows no proxy", "node", f"node {INSIDE}/programs/https.cjs URL"),
    Client("Go net/http", f"{INSIDE}/get", f"{INSIDE}/get URL"),
    Client("Go net/http without a proxy", f"{INSIDE}/get", f"env -u HTTPS_PROXY -u https_proxy {INSIDE}/get URL"),
    Client(
        "openssl s_client",
        "openssl",
        r"printf 'GET PATH HTTP/1.1\r\nHost: api.github.com\r\nConnection: close\r\n\r\n' | "
        "openssl s_client -quiet -verify_return_error -connect api.github.com:443 -servername api.github.com",
    ),
)


@dataclass(frozen=True)
class Answer:
    """What one client asked for and printed."""

    path: str
    output: str
    errors: str


@pytest.fixture(scope="module")
def answers(place: Place) -> Mapping[str, Answer]:
    """Run every client that can be had, one after the other in one run; return what each printed, by name."""
    workspace = place.workspace()
    paths = {each.name: place.fresh_path(each.name) for each in CLIENTS}
    scripts = [each.script(paths[each.name], number) for number, each in enumerate(CLIENTS) if has(each.needs, place)]
    place.run("sh", "-c", "\n".join(scripts), workspace=workspace)
    files = {each.name: workspace / f"{number}.out" for number, each in enumerate(CLIENTS)}
    return {
        name: Answer(paths[name], file.read_text(), file.with_suffix(".err").read_text())
        for name, file in files.items()
        if file.exists()
    }


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_fetches_with_the_credential_it_does_not_have(
    client: Client, place: Place, answers: Mapping[str, Answer]
) -> None:
    skip_without(client.needs, place)
    answer = answers[client.name]

    assert f'{{"ok": true, "path": "{answer.path}"}}' in answer.output, answer.errors
    place.assert_spent(answer.path)


def test_pip_installs_from_an_index_that_wants_a_credential(place: Place) -> None:
    skip_without(f"{INSIDE}/lib/pip", place)

    output = run_script(
        place,
        f"python3 -m pip install --quiet --no-cache-dir --index-url {API}/simple/ --target /tmp/new moat-sample"
        " && PYTHONPATH=/tmp/new python3 -c 'import moat_sample; print(moat_sample.GREETING)'",
        LIBRARIES,
    )

    assert "installed by pip" in output
    place.assert_spent("/simple/moat-sample")
    place.assert_spent("/files/")


def test_npm_views_and_installs_from_a_registry_that_wants_a_credential(place: Place) -> None:
    skip_without(f"{INSIDE}/npm", place)
    npm = f"{INSIDE}/node {INSIDE}/npm/bin/npm-cli.js --registry={API}/npm/ --no-audit --no-fund --no-update-notifier"

    output = run_script(
        place,
        f"cd /tmp && {npm} view moat-sample version && {npm} install --prefix /tmp/new moat-sample"
        f""" && {INSIDE}/node -p "require('/tmp/new/node_modules/moat-sample')" """,
    )

    assert "1.0.0" in output
    assert "installed by npm" in output
    place.assert_spent("/npm/moat-sample")


def test_cargo_searches_a_registry_that_wants_a_credential(place: Place) -> None:
    skip_without(f"{INSIDE}/cargo", place)

    output = run_script(
        place, f"{INSIDE}/cargo search --index sparse+{API}/cargo/ moat-sample", {"CARGO_HOME": "/tmp/cargo"}
    )

    assert "found by cargo" in output
    place.assert_spent("/cargo/")


def test_aws_reaches_an_endpoint_with_keys_that_are_none(place: Place) -> None:
    skip_without(f"{INSIDE}/aws", place)
    keys = {"AWS_ACCESS_KEY_ID": "placeholder", "AWS_SECRET_ACCESS_KEY": "placeholder"}

    output = run_script(
        place,
        f"python3 -m awscli --endpoint-url {API}/aws --region eu-central-1 dynamodb list-tables",
        {**keys, "PYTHONPATH": f"{INSIDE}/aws"},
    )

    assert "listed-by-aws" in output
    place.assert_spent("/aws")


def test_a_client_that_trusts_nothing_of_ours_gets_no_answer(place: Place) -> None:
    path = place.fresh_path("curl with an empty trust store")

    done = place.run("curl", "-sS", "--cacert", "/dev/null", "--capath", "/nowhere", API + path)

    assert done.returncode in (60, 77)  # the certificate cannot be verified; the trust store cannot be read
    assert place.services.asked(path) == []


def run_script(place: Place, script: str, env: Mapping[str, str] = NOTHING_SET) -> str:
    """Run a shell script inside and return what it printed."""
    set_env = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
    return place.ok("sh", "-c", script, flags=tuple(set_env))


def skip_without(needs: str, place: Place) -> None:
    """Skip when a program cannot be had inside, saying which."""
    if not has(needs, place):
        pytest.skip(f"this machine has no {Path(needs).name} for {place.runtime}")


def has(needs: str, place: Place) -> bool:
    """Whether a program, or a file that is brought in, can be had inside."""
    if needs.startswith(INSIDE):
        return (place.inside / Path(needs).relative_to(INSIDE)).exists()
    return image_has(needs) if place.runtime == "docker" else shutil.which(needs, path="/usr/bin:/bin") is not None


@pytest.mark.parametrize("place", PLACES[:1], indirect=True)
@pytest.mark.parametrize("way", ["--proxy1.0", "--proxy1.0 --http1.0", "--proxytunnel --proxy1.0"])
def test_curl_that_speaks_http_1_0_to_the_proxy_is_served(place: Place, way: str) -> None:
    path = place.fresh_path("proxy-1.0")

    output = place.ok(
        "sh", "-c", f"curl -sS --noproxy '' {way.replace('--proxy1.0', '--proxy1.0 127.0.0.1:19080')} "
                    f"https://api.github.com{path}",
    )  # fmt: skip

    assert path in output
    place.assert_spent(path)
