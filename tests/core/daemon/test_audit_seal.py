from __future__ import annotations

import asyncio
from contextlib import closing, nullcontext
from pathlib import Path

from moat.api.errors import StoreLocked
from moat.audit.chain import INSTALLATION, STARTED
from moat.audit.heads import Anchor, public_key_of
from moat.audit.log import AuditLog
from moat.audit.reading import AuditReader
from moat.audit.verify import Pin, Report
from moat.daemon.audit_key import AuditKeys, Secret
from moat.daemon.audit_seal import Seal, Signing
from moat.paths import Home

from core.audit.making import AT, RUN, SEED, a_note
from core.daemon.making import until

FILE = {"MOAT_KEYRING_BACKEND": "file"}


def verified(path: Path, anchor: Anchor) -> Report:
    with AuditReader(path) as reader:
        return reader.verify(Pin(public_key_of(SEED), anchor))


def test_all_that_went_on_gets_one_counter_which_only_grows(tmp_path: Path) -> None:
    path, seal = tmp_path / "audit.db", Seal(Secret(SEED))
    with closing(AuditLog(path)) as log:
        log.append([a_note(RUN, STARTED)])
        assert seal.seal(log, AT)
        assert not seal.seal(log, AT)
        log.append([a_note(RUN, "used")])
        assert seal.seal(log, AT)
        assert (seal.secret.anchor.counter, log.counter(), log.unsealed()) == (2, 2, {})
        assert seal.secret.anchor.tip == log.tips()[INSTALLATION]

    assert verified(path, seal.secret.anchor).is_whole


def test_a_log_that_was_taken_away_says_so_for_ever(tmp_path: Path) -> None:
    path, seal = tmp_path / "audit.db", Seal(Secret(SEED))
    with closing(AuditLog(path)) as log:
        log.append([a_note(RUN, STARTED)])
        seal.seal(log, AT)
    path.unlink()
    with closing(AuditLog(path)) as log:
        log.append([a_note(INSTALLATION, "daemon-started")])
        after = Seal(seal.secret)
        after.seal(log, AT)
        log.append([a_note(INSTALLATION, "granted")])
        after.seal(log, AT)
        assert log.counter() > seal.secret.anchor.counter

    report = verified(path, after.secret.anchor)
    assert [(fault.chain, fault.seq) for fault in report.faults] == [(INSTALLATION, 2)]
    assert "taken away" in report.faults[0].problem


async def test_the_key_is_waited_for_in_the_background_and_what_is_signed_remembered(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    class Locked(AuditKeys):
        tries = 0

        def obtain(self) -> Secret:
            self.tries += 1
            if self.tries == 1:
                raise StoreLocked("locked")
            return super().obtain()

    keys = Locked(home, FILE)
    signing = Signing(keys, first_delay_s=0.01)
    with closing(AuditLog(home.audit)) as log:
        log.append([a_note(RUN, STARTED)])
        await signing.sign(log, nullcontext(), at_once=True)
        assert log.counter() == 0
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(signing.keep_key())
            await until(lambda: keys.tries == 2)

            async def signed() -> bool:
                await signing.sign(log, nullcontext(), at_once=True)
                return log.counter() == 1

            while not await signed():  # noqa: ASYNC110 # the key comes from a thread
                await asyncio.sleep(0.01)
            await signing.remember()
            keeping.cancel()

    secret = AuditKeys(home, FILE).look()
    assert secret is not None
    assert secret.anchor.counter == 1
