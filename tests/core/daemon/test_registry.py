from __future__ import annotations

from dataclasses import replace

import pytest
from moat.api.errors import DaemonError, RunNotFound
from moat.daemon import registry as module
from moat.daemon.registry import Entry, Registry, hash_token

from core.daemon.making import OTHER_ID, RUN_ID, a_context, an_info

TOKEN, OTHER_TOKEN = "a" * 64, "b" * 64


def an_entry(run_id: str = RUN_ID, token: str = TOKEN) -> Entry:
    return Entry(a_context(run_id, token), an_info(run_id))


def test_a_published_run_is_found_by_its_token_and_by_no_other() -> None:
    registry = Registry()
    registry.publish(an_entry())
    registry.publish(an_entry(OTHER_ID, OTHER_TOKEN))

    assert registry.with_token(TOKEN).run_id == RUN_ID
    for wrong in ("", "a" * 63, hash_token(TOKEN), "c" * 64):
        with pytest.raises(RunNotFound):
            registry.with_token(wrong)


def test_the_token_itself_is_not_kept() -> None:
    registry = Registry()
    registry.publish(an_entry())

    entry = registry.with_token(TOKEN)

    assert entry.context.token_sha256 == hash_token(TOKEN) != TOKEN
    assert hash_token(TOKEN) not in repr(entry)


def test_an_id_or_a_token_in_use_is_refused() -> None:
    registry = Registry()
    registry.publish(an_entry())

    for twin in (an_entry(RUN_ID, OTHER_TOKEN), an_entry(OTHER_ID, TOKEN)):
        with pytest.raises(DaemonError):
            registry.publish(twin)
    assert len(registry) == 1


def test_an_entry_is_replaced_whole_and_an_ended_run_is_not_revived() -> None:
    registry = Registry()
    registry.publish(an_entry())
    held = registry.with_token(TOKEN)

    registry.replace(replace(held, info=replace(held.info, requests=9)))
    assert registry.with_token(TOKEN).info.requests == 9
    assert held.info.requests == 0

    registry.remove(RUN_ID)
    registry.replace(held)
    assert registry.get(RUN_ID) is None


def test_an_ended_run_is_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENDED", 1)
    registry = Registry()
    registry.publish(an_entry())
    assert registry.ended_with_token(TOKEN) is None

    registry.remove(RUN_ID)
    assert registry.ended_with_token(TOKEN) == RUN_ID

    registry.publish(an_entry(OTHER_ID, OTHER_TOKEN))
    registry.remove(OTHER_ID)
    assert (registry.ended_with_token(TOKEN), registry.ended_with_token(OTHER_TOKEN)) == (None, OTHER_ID)


def test_a_run_may_end_while_all_are_looked_at() -> None:
    registry = Registry()
    registry.publish(an_entry())
    registry.publish(an_entry(OTHER_ID, OTHER_TOKEN))

    for entry in registry:
        registry.remove(entry.run_id)

    assert len(registry) == 0
    assert registry.remove(RUN_ID) is None
