"""What may leave a run: everything public in permissive, grants and named hosts in strict, nothing by address."""

from __future__ import annotations

import json

from support.places import ROOT_PLACES, Place

pytestmark = ROOT_PLACES

CURL = ("curl", "-sS", "-i", "--max-time", "20")
STRICT = ("--policy", "strict")


def test_permissive_lets_a_host_without_a_grant_out_and_spends_nothing_on_it(place: Place) -> None:
    path = place.fresh_path("permissive")

    place.ok(*CURL, f"https://open.example.com{path}")

    assert [each.header("Authorization") for each in place.services.asked(path)] == [None]


def test_strict_lets_the_hosts_of_the_grant_out(place: Place) -> None:
    path = place.fresh_path("strict")

    place.ok(*CURL, f"https://api.github.com{path}", flags=STRICT)

    place.assert_spent(path)


def test_strict_has_no_address_for_another_host(place: Place) -> None:
    path = place.fresh_path("refused")

    done = place.run(*CURL, "--noproxy", "*", f"https://other.example.org{path}", flags=STRICT)

    assert done.returncode == 6  # could not resolve the host
    assert place.services.asked(path) == []
    assert "to allow: --allow-host other.example.org" in done.stderr.decode().splitlines()[-1]


def test_strict_refuses_through_the_proxy_with_a_reason_and_the_line_to_add(place: Place) -> None:
    done = place.run(*CURL, "https://other.example.org/", flags=STRICT)

    assert b"403" in done.stdout + done.stderr
    assert b"X-Moat-Blocked" in done.stdout
    last = done.stderr.decode().splitlines()[-1]
    assert "to allow: --allow-host other.example.org" in last


def test_a_refusal_stands_in_the_trace_with_the_line_to_add(place: Place) -> None:
    place.run(*CURL, "https://other.example.org/", flags=(*STRICT, "--name", "refused"))

    traced = json.loads(place.installation.ok("trace", "refused", "--network", "--json"))

    assert [each["outcome"] for each in traced] == ["denied"]
    assert traced[0]["host"] == "other.example.org"
    assert traced[0]["allow_line"] == "--allow-host other.example.org"
    assert "other.example.org" in place.installation.ok("trace", "refused", "--network")


def test_the_line_to_add_lets_the_host_out(place: Place) -> None:
    path = place.fresh_path("allowed")

    output = place.ok(*CURL, f"https://other.example.org{path}", flags=(*STRICT, "--allow-host", "other.example.org"))

    assert "200 OK" in output
    assert place.services.asked(path)


def test_the_host_itself_is_not_reached_by_its_address_through_the_proxy(place: Place) -> None:
    path = place.fresh_path("by address")
    url = f"https://127.0.0.1:{place.services.port}{path}"

    done = place.run("curl", "-sS", "-k", "-i", "--noproxy", "", "--proxy", "http://127.0.0.1:19080", url)

    assert place.services.asked(path) == []
    assert b"200 OK" not in done.stdout


def test_a_metadata_service_is_refused_in_permissive(place: Place) -> None:
    done = place.run(*CURL, "http://169.254.169.254/latest/meta-data/", flags=("--name", "metadata"))

    assert b"200" not in done.stdout.splitlines()[0]
    traced = json.loads(place.installation.ok("trace", "metadata", "--network", "--json"))
    assert [each["status"] for each in traced] == [403]


def test_plain_http_never_carries_the_credential(place: Place) -> None:
    path = place.fresh_path("plain")

    place.run(*CURL, f"http://api.github.com{path}", flags=("--name", "plain"))

    traced = json.loads(place.installation.ok("trace", "plain", "--network", "--json"))
    assert [each["grants"] for each in traced] == [[]]
    assert place.services.asked(path) == []
