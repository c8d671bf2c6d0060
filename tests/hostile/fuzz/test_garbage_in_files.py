"""Whatever stands in a file of moat's: one error of moat's own that says so, or a value; never anything else."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
from core.daemon.making import OTHER_ID, a_context, an_info
from hypothesis import example, given
from hypothesis import strategies as st
from moat.api import Credential
from moat.api.errors import DaemonError, MoatError, RunNotFound, StoreError, UsageError
from moat.api.runs import ExchangeRecord, NetworkPolicy
from moat.config.settings import load_settings
from moat.daemon.extras import AwsConfig, Extras, McpServer
from moat.daemon.listening import listening
from moat.daemon.process import Card, living, read_card
from moat.daemon.registry import Entry, Place, Registry
from moat.daemon.restore import is_over, spec_again
from moat.daemon.state import load, parse, render
from moat.daemon.upstream import Installation
from moat.net.rules import parse_rule
from moat.paths import Home, private_folder
from moat.proxy.server.upstream import DialSettings
from moat.routing.table import Table, check
from moat.runtimes.door import hash_nonce
from moat.store.credentials import CredentialStore
from moat.trace.network import read_exchanges
from moat.trace.store import RunStore
from support.fuzz import fuzzed

from hostile.fuzz.spoiling import cut_up, files

T = TypeVar("T")
RUN_ID = "run_00000000000a"
RUN = asdict(an_info())
SECRET = "ghp_s3cr3t"
BOOT = "this-boot"
CONFIG = b"""image: debian:bookworm-slim
runtime: bubblewrap
network:
  policy: strict
  rules: ["allow GET api.example.com/repos/**"]
upstream:
  resolve: {api.internal: "10.0.0.5:8443", "v6.internal": "[fd00::1]:80"}
  allow_cidrs: [10.0.0.0/8]
  proxy: http://user:pa@proxy.example:3128
  no_proxy: ["*.example.com"]
"""
ODD_CONFIGS = st.sampled_from(
    (
        b"image: 2020-13-45",
        b"upstream: {ca_bundle: ~nobody-here/roots.pem}",
        b'upstream: {ca_bundle: "\\0"}',
        b"upstream: {resolve: {'a b': 10.0.0.5}}",
        b"upstream: {resolve: {x: 'fe80::1%eth0'}}",
        b"[" * 5_000,
        b"{a: " * 3_000,
        b"upstream: {resolve: {'x..y': 10.0.0.5}}",
        b"upstream: {allow_cidrs: [10.0.0.1/8]}",
        b"a: &a [*a]",
        b"? [a]\n: b",
        b"!!python/object:os.system {}",
        b"image: !!binary x",
        b"upstream: {proxy: 'http://[::1'}",
        b"upstream: {resolve: []}",
        b"runtime: !!int x",
        b"image: 0b2",
        b"image: 1_000:99",
        b'upstream: {no_proxy: ["[::g]"]}',
        b"\xef\xbb\xbfimage: x",
        b"network: {rules: [1]}",
        b"network: {policy: maybe}",
        b"upstream: {resolve: {1: 2}}",
        b"upstream: {ca_bundle: .}",
        b"<<: x",
        b"<<: [{image: a}, 1]",
        b"image: .inf",
        b"upstream: {resolve: {x: '010.0.0.1'}}",
        b"upstream: {resolve: {X: 1.2.3.4, x: 1.2.3.4}}",
        b"upstream: {resolve: {'xn--a': 10.0.0.5}}",
        b"upstream: {resolve: {x: '10.0.0.5:'}}",
        b"upstream: {allow_cidrs: ['fe80::/10%1']}",
        b"upstream: {resolve: {'\\ud800': 10.0.0.5}}",
        b"upstream: {resolve: {x: '10.0.0.5:00000'}}",
        b'image: "\\ud800"',
    )
)


def one_error(kind: type[MoatError], read: Callable[[], T]) -> T | None:
    """Return what was read, or None after an error of this kind, with words that can be shown."""
    try:
        return read()
    except kind as failure:
        if not 0 < len(failure.problem) < 20_000 or SECRET in failure.problem + failure.hint:
            raise AssertionError("an error that cannot be shown") from failure
        return None


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.root.mkdir(mode=0o700)
    return made


@fuzzed(100)
@given(data=st.one_of(cut_up(CONFIG), ODD_CONFIGS, st.binary(max_size=40)))
def test_a_config_file_is_taken_with_all_that_comes_of_it_or_refused(home: Home, data: bytes) -> None:
    home.config.write_bytes(data)
    configure = one_error(UsageError, lambda: Installation("", "", lambda: load_settings(home)).configuration())
    if configure is None:
        return
    DialSettings.of(configure)  # the worker has nobody to complain to: what was taken here, it must be able to use


@fuzzed(100)
@given(data=files(RUN))
@example(data=b"[" * 5_000)
def test_a_run_file_is_read_or_is_no_run(home: Home, data: bytes) -> None:
    folder = home.run(RUN_ID)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("run.json", "run.json.broken", "names.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "run.json").write_bytes(data)
    (folder / "names.json").write_bytes(data)
    store = RunStore(home)

    found = one_error(RunNotFound, lambda: store.read(RUN_ID))
    assert store.list() == ([] if found is None else [found])
    assert all(isinstance(text, str) for pair in store.read_names(RUN_ID).items() for text in pair)
    assert bool(store.set_aside_broken()) == (found is None)
    if found is not None:
        json.dumps(asdict(found))


@fuzzed(60)
@given(
    lines=st.lists(
        files(asdict(ExchangeRecord(RUN_ID, "", "http", "GET", "http", "a", 80, "/", 200, "forwarded"))), max_size=3
    )
)
def test_a_trace_is_read_without_the_lines_that_are_none(home: Home, lines: list[bytes]) -> None:
    file = home.root / "network.jsonl"
    file.write_bytes(b"\n".join(lines))

    assert all(isinstance(record, ExchangeRecord) for record in read_exchanges(file))


def sealed(home: Home) -> tuple[CredentialStore, bytes]:
    """Return a store with one credential, and its file's contents."""
    store = CredentialStore(home, env={"MOAT_KEYRING_BACKEND": "file"}, warn=lambda _: None)
    store.save(Credential("github", SECRET, "gh", {"region": "eu"}, datetime(2031, 1, 1, tzinfo=UTC)))
    return store, (home.credentials / "github.json").read_bytes()


@fuzzed(100)
@given(data=st.data())
def test_a_credential_file_that_was_changed_is_refused_and_never_yields_another_secret(
    home: Home, data: st.DataObject
) -> None:
    store, good = sealed(home)
    spoilt = data.draw(st.one_of(files(json.loads(good)), cut_up(good)))
    (home.credentials / "github.json").write_bytes(spoilt)

    found = one_error(StoreError, lambda: store.load("github"))
    assert found is None or found.secret == SECRET
    (info,) = store.describe_all()
    assert info.name == "github"


CARD = asdict(Card(7, 8, "1.0", 19080, "2026-01-01T00:00:00+00:00", BOOT))
LIVE = Entry(
    a_context(policy=NetworkPolicy("strict", ("*.example.com",), (parse_rule("allow GET api.example.com/**"),))),
    an_info(policy="strict", grants=("apple",)),
    Place(nonce_sha256="ab" * 32, cookie=77, listen_on="127.0.0.9", port=9000, launcher="7", began=8),
    Extras(mcp_servers=(McpServer("docs", "https://mcp.example.com"),), aws_config=AwsConfig("arn:aws:iam::1:role/r")),
    ("profiles",),
)
LIVE_RUNS = json.loads(render([LIVE, replace(LIVE, context=a_context(OTHER_ID, "u"), info=an_info(OTHER_ID))], BOOT))
ROUTES = {"version": 1, "routes": {"calm-otter": {"run_id": RUN_ID, "endpoints": {"web": 3000}}}}


def admits(nonce_sha256: str, nonce: str) -> bool:
    return hmac.compare_digest(nonce_sha256, hash_nonce(nonce))  # as the door does


def remains(file: Path) -> list[str]:
    """Return what stands in file's folder, which is then empty."""
    found = sorted(each.name for each in file.parent.iterdir())
    for name in found:
        (file.parent / name).unlink()
    return found


@fuzzed(100)
@given(data=files(CARD))
@example(data=json.dumps(CARD | {"proxy_port": 70_000}).encode())
def test_a_daemon_s_card_is_read_or_set_aside(home: Home, data: bytes) -> None:
    file = private_folder(home.daemon) / "daemon.json"
    file.write_bytes(data)

    card = read_card(home)

    assert living(home) is None  # no such process
    assert remains(file) == ["daemon.json" if card is not None else "daemon.json.broken"]
    if card is not None:
        listening((card.proxy_port, 0)).close()


@fuzzed(200)
@given(data=files(LIVE_RUNS))
@example(data=json.dumps(LIVE_RUNS | {"runs": LIVE_RUNS["runs"][:1] * 2}).encode())
@example(data=json.dumps(LIVE_RUNS | {"version": 3}).encode())
def test_what_is_kept_of_live_runs_can_be_taken_over_or_is_set_aside(home: Home, data: bytes) -> None:
    file = private_folder(home.daemon) / "runs.json"
    file.write_bytes(data)

    found = one_error(DaemonError, lambda: load(home, BOOT))

    assert remains(file) in (["runs.json"], ["runs.json.broken"])
    registry = Registry()
    for entry in found or ():
        registry.publish(entry)
        is_over(entry.place)
        spec_again(entry)
        admits(entry.place.nonce_sha256, "a nonce")
    assert parse(render(registry, BOOT), BOOT) == (list(registry), [])


@fuzzed(100)
@given(data=files(ROUTES))
def test_a_file_of_routes_is_read_or_set_aside(home: Home, data: bytes) -> None:
    file = private_folder(home.daemon) / "routes.json"
    file.write_bytes(data)
    table = Table(file)

    table.load({RUN_ID})

    assert remains(file) in (["routes.json"], ["routes.json.broken"])
    for route in table:
        check(route)
