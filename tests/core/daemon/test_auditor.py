from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from moat.api.errors import AuditUnwritable
from moat.audit.chain import ENDED, INSTALLATION, STARTED
from moat.audit.heads import public_key_of
from moat.audit.reading import AuditReader
from moat.audit.verify import Pin, Report
from moat.daemon.audit_key import AuditKeys
from moat.daemon.audit_notes import left, tell
from moat.daemon.audit_seal import Signing
from moat.daemon.auditor import Auditor
from moat.paths import Home
from moat.proxy.entering import Entered, Spend, Spends
from moat.proxy.messages import Uses

from core.daemon.making import OTHER_ID, RUN_ID, an_info, until

FILE = {"MOAT_KEYRING_BACKEND": "file"}
API = "https://api.apple.test"


class Desk:
    """An auditor, and what stands in the log."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.live = {RUN_ID}
        signing = Signing(AuditKeys(home, FILE))
        self.auditor = Auditor(home.audit, signing, self.live.__contains__, lambda: left(home))

    async def spend(self, *grants: str, run_id: str = RUN_ID) -> Entered:
        """Have a first use entered, as a worker does."""
        spends = Spends(1, (Spend(run_id, grants, API, "connect", 3),))
        return await asyncio.to_thread(self.auditor.desk.enter, spends)

    def entries(self, chain: str = RUN_ID) -> list[tuple[str, str]]:
        with AuditReader(self.home.audit) as reader:
            return [(entry.kind, entry.facts) for entry in reader.entries(chain)]

    def kinds(self, chain: str = RUN_ID) -> list[str]:
        return [kind for kind, _ in self.entries(chain)]

    def report(self) -> Report:
        secret = AuditKeys(self.home, FILE).look()
        with AuditReader(self.home.audit) as reader:
            return reader.verify(Pin() if secret is None else Pin(public_key_of(secret.seed), secret.anchor))


@asynccontextmanager
async def a_desk(home: Home, *, begins: bool = True) -> AsyncIterator[Desk]:
    desk = Desk(home)
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(desk.auditor.forever())
        try:
            if begins:
                await desk.auditor.noted(RUN_ID, STARTED, {"name": "calm-otter"})
            yield desk
            await desk.auditor.close()
        finally:
            writing.cancel()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


async def test_a_first_use_is_on_the_disk_before_the_worker_hears_of_it(home: Home) -> None:
    async with a_desk(home) as desk:
        assert await desk.spend("apple", "pear") == Entered(1)
        assert desk.kinds() == [STARTED, "used", "used"]
        assert desk.entries()[1] == ("used", '{"authority":"https://api.apple.test","grant":"apple","tunnel":3,'
                                             '"via":"connect"}')  # fmt: skip


async def test_a_first_use_comes_after_what_happened_before_it_also_when_nothing_could_be_written(home: Home) -> None:
    async with a_desk(home) as desk:
        with closing(sqlite3.connect(home.audit)) as other:
            assert desk.auditor._log is not None
            desk.auditor._log._db.execute("PRAGMA busy_timeout = 1")
            other.execute("BEGIN IMMEDIATE")
            for kind in ("resolved", "opened"):
                desk.auditor.note(RUN_ID, kind)
            assert "cannot be written" in (await desk.spend("apple")).problems[0]
            other.rollback()
        assert await desk.spend("apple") == Entered(1)

        assert desk.kinds() == [STARTED, "resolved", "opened", "used"]


async def test_further_uses_and_denials_are_counted_and_entered_within_a_second(home: Home) -> None:
    async with a_desk(home) as desk:
        for _ in range(3):
            desk.auditor.take_uses(Uses(RUN_ID, (("apple", API, 2),)))
            desk.auditor.denied(RUN_ID, "https://evil.test", "strict policy")
        await until(lambda: len(desk.kinds()) == 3)

        assert desk.kinds() == [STARTED, "used-again", "denied"]
        assert '"count":6' in desk.entries()[1][1]


async def test_a_run_that_the_daemon_does_not_know_spends_nothing(home: Home) -> None:
    async with a_desk(home) as desk:
        unknown = await desk.spend("apple", run_id=OTHER_ID)
        desk.auditor.take_uses(Uses(OTHER_ID, (("apple", API, 1),)))
        desk.live.add(OTHER_ID)  # live, and its chain has not begun, or is over
        unbegun = await desk.spend("apple", run_id=OTHER_ID)

    assert [unknown.problems, unbegun.problems] == [("no live run spends it",), ("the run is over",)]


async def test_a_runs_end_is_the_last_of_it_with_all_that_was_counted_before(home: Home) -> None:
    async with a_desk(home) as desk:
        await until(lambda: desk.auditor._signing._seal is not None)  # nothing else waits for the key
        desk.auditor.take_uses(Uses(RUN_ID, (("apple", API, 2),)))
        desk.auditor.ended(an_info(state="stopped", exit_code=3))
        desk.auditor.note(RUN_ID, "too-late")
        await desk.auditor.flushed()
        with pytest.raises(AuditUnwritable, match="the run is over"):
            await desk.auditor.noted(RUN_ID, "exec", {})

    assert desk.kinds() == [STARTED, "used-again", ENDED]
    assert desk.kinds(INSTALLATION) == ["daemon-started", "run-started", "run-ended", "daemon-stopped"]
    assert desk.report().is_whole
    assert (desk.report().unsealed, desk.report().is_closed) == (0, True)


async def test_while_nothing_can_be_written_who_waits_is_refused_and_nothing_else_is_lost(home: Home) -> None:
    async with a_desk(home) as desk:
        with closing(sqlite3.connect(home.audit)) as other:
            assert desk.auditor._log is not None
            desk.auditor._log._db.execute("PRAGMA busy_timeout = 1")
            other.execute("BEGIN IMMEDIATE")  # as good as a disk that takes nothing
            desk.auditor.note(RUN_ID, "opened")
            desk.auditor.take_uses(Uses(RUN_ID, (("apple", API, 5),)))
            (problem,) = (await desk.spend("apple")).problems
            assert "cannot be written" in problem
            assert desk.auditor.problem == problem
            with pytest.raises(AuditUnwritable, match="cannot be written"):
                await desk.auditor.noted(RUN_ID, "exec", {})
            other.rollback()
        await desk.auditor.flushed()
        assert desk.auditor.problem == ""

    assert desk.kinds() == [STARTED, "opened", "used-again"]


async def test_the_next_daemon_goes_on_and_says_how_the_last_one_ended(home: Home) -> None:
    async with a_desk(home) as desk:
        desk.auditor.begin([])
    for ended, after in ((True, "a stop"), (False, "a kill")):
        if not ended:
            with closing(sqlite3.connect(home.audit)) as db:  # as if it had not come to it
                db.execute("DELETE FROM entries WHERE kind = 'daemon-stopped' AND seq > 5")
                db.commit()
        again = Desk(home)
        again.auditor.begin([an_info(RUN_ID)])
        await again.auditor.flushed()
        assert after in again.entries(INSTALLATION)[-1][1]
        assert again.kinds()[-1] == "taken-over"
        assert again.auditor._log is not None
        again.auditor._log.close()

    last = Desk(home)
    last.auditor.begin([an_info(OTHER_ID)])  # of a daemon that had no audit
    await last.auditor.close()
    assert (last.kinds()[-1], last.kinds(OTHER_ID)) == (ENDED, [STARTED])


async def test_what_was_left_while_there_was_no_daemon_is_entered(home: Home) -> None:
    tell(home, "granted", {"grant": "apple"})
    tell(home, "exec", {"program": "sh"}, OTHER_ID)  # of a run that is not there any more
    async with a_desk(home, begins=False) as desk:
        await desk.auditor.flushed()

    assert desk.kinds(INSTALLATION) == ["daemon-started", "granted", "daemon-stopped"]
    assert left(home) == []


async def test_what_cannot_be_spelled_is_no_reason_to_write_nothing(home: Home) -> None:
    async with a_desk(home) as desk:
        desk.auditor.note(RUN_ID, "opened", {"text": "\ud800", "number": 1.5})
        desk.auditor.note(RUN_ID, "opened", {"text": "\ud800"})
        await desk.auditor.flushed()

    assert [facts for _, facts in desk.entries()[1:]] == ['{"unwritable":["number","text"]}', '{"text":"\\\\ud800"}']


async def test_after_its_end_nothing_is_entered(home: Home) -> None:
    async with a_desk(home) as desk:
        pass
    assert (await desk.spend("apple")).problems == ("the audit is closed",)
