"""What happens, as a listener on the socket of a real daemon hears it."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from faults.rotating import HOST
from faults.soaking import an_internet
from moat.daemon.client import DaemonClient
from moat.daemon.lifecycle import stop
from moat.daemon.protocol import RegisterRequest
from moat.daemon.told import Told
from moat.ids import new_run_id
from moat.paths import Home
from support.living import until

pytestmark = pytest.mark.timeout(120)


class Listener:
    """Somebody who listens until the end, in a thread. heard: everything."""

    def __init__(self, home: Home, run_id: str = "") -> None:
        self.heard: list[Told] = []
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(home, run_id))
        self._thread.start()
        assert self._begun.wait(30)

    def _listen(self, home: Home, run_id: str) -> None:
        with DaemonClient(home).events(run_id) as events:
            self._begun.set()
            for event in events:  # one by one: they are looked at meanwhile
                self.heard.append(event)

    def kinds(self, run_id: str = "") -> list[str]:
        return [event.kind for event in self.heard if event.run_id == run_id]

    def end(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


async def test_a_listener_hears_of_runs_requests_and_renewals_until_the_daemon_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAT_KEYRING_BACKEND", "file")
    async with an_internet(tmp_path, 1.0) as home:
        client, run_id, other_id = DaemonClient(home), new_run_id(), new_run_id()
        everything, one = Listener(home), Listener(home, other_id)
        made = client.register(RegisterRequest(run_id, grants=("rotating",), profile="p0", needs_door=False))
        client.tell_container(made.auth_token, str(os.getpid()))
        await until(lambda: everything.kinds(run_id) == ["run_started"])

        proxy = f"http://moat:{made.auth_token}@127.0.0.1:{made.proxy_port}"
        words = ("curl", "-s", "-m", "20", "--cacert", home.ca / "ca.pem", "-x", proxy, f"https://{HOST}/user?s3cr3t")
        asking = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL)
        assert await asking.wait() == 0
        await until(lambda: "exchange" in everything.kinds(run_id))
        await until(lambda: len(everything.kinds()) >= 2)
        client.end(made.auth_token, 3)
        await asyncio.to_thread(stop, home)
        everything.end()
        one.end()

    assert everything.kinds(run_id) == ["run_started", "exchange", "run_stopped"]
    found = {event.kind: event.data for event in everything.heard}
    assert (found["exchange"]["exchange"]["host"], found["exchange"]["exchange"]["status"]) == (HOST, 200)
    assert found["run_stopped"]["exit_code"] == 3
    assert (found["grant"]["grant"]["profile"], found["grant"]["grant"]["state"]) == ("p0", "fresh")
    assert everything.heard[-1].kind == "closed"
    assert "s3cr3t" not in str(everything.heard)
    assert {event.kind for event in one.heard} == {"grant", "closed"}  # what concerns no single run, and nothing else
