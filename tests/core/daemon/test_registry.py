from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from moat.api.errors import DaemonError, RunNotFound
from moat.daemon import registry as module
from moat.daemon.registry import MAX_RECENT, Entry, Registry, hash_token

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


def test_a_run_that_has_just_ended_is_remembered_for_what_it_began() -> None:
    registry = Registry()
    for number in range(MAX_RECENT + 1):
        run_id = f"run_{number:012x}"
        registry.publish(Entry(a_context(run_id, f"{number:064x}"), an_info(run_id)))
        registry.remove(run_id)

    assert registry.recent("run_000000000000") is None
    found = registry.recent("run_000000000001")
    assert found is not None
    assert registry.get("run_000000000001") is None


class Registering(RuleBasedStateMachine):
    """Beside a plain dictionary: what is live, who holds which token, what is counted, and when a change is told."""

    RUNS = tuple(f"run_{number:012x}" for number in range(4))
    TOKENS = tuple(letter * 64 for letter in "abc")

    def __init__(self) -> None:
        super().__init__()
        self.told = 0
        self.registry = Registry(self.changed)
        self.model: dict[str, tuple[str, int]] = {}
        self.ended: dict[str, str] = {}
        self.changes = 0

    def changed(self) -> None:
        self.told += 1

    @rule(run_id=st.sampled_from(RUNS), token=st.sampled_from(TOKENS))
    def publish(self, run_id: str, token: str) -> None:
        taken = run_id in self.model or token in [held for held, _ in self.model.values()]
        try:
            self.registry.publish(an_entry(run_id, token))
        except DaemonError:
            assert taken
        else:
            assert not taken
            self.model[run_id] = (token, 0)
            self.changes += 1

    @rule(run_id=st.sampled_from(RUNS), times=st.integers(1, 3))
    def count(self, run_id: str, times: int) -> None:
        assert self.registry.count(run_id, times, denied=0) == (run_id in self.model)
        if run_id in self.model:
            token, counted = self.model[run_id]
            self.model[run_id] = (token, counted + times)

    @rule(run_id=st.sampled_from(RUNS), token=st.sampled_from(TOKENS))
    def replace_whole(self, run_id: str, token: str) -> None:
        held = self.model.get(run_id, (token, 0))
        entry = an_entry(run_id, held[0])
        self.registry.replace(replace(entry, info=replace(entry.info, requests=held[1])))
        self.changes += run_id in self.model

    @rule(run_id=st.sampled_from(RUNS))
    def remove(self, run_id: str) -> None:
        assert (self.registry.remove(run_id) is not None) == (run_id in self.model)
        if run_id in self.model:
            self.ended[self.model.pop(run_id)[0]] = run_id
            self.changes += 1

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        assert {entry.run_id: entry.info.requests for entry in self.registry} == {
            run_id: counted for run_id, (_, counted) in self.model.items()
        }
        for token in self.TOKENS:
            holders = [run_id for run_id, (held, _) in self.model.items() if held == token]
            if holders:
                assert [self.registry.with_token(token).run_id] == holders
            else:
                with pytest.raises(RunNotFound):
                    self.registry.with_token(token)
            assert self.registry.ended_with_token(token) == self.ended.get(token)
        assert self.told == self.changes


TestRegistering = Registering.TestCase
TestRegistering.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_counters_are_told_of_when_asked_and_only_then() -> None:
    told: list[str] = []
    registry = Registry(lambda: told.append("change"))
    registry.publish(Entry(a_context(), an_info()))
    registry.count(RUN_ID, 3, denied=1)
    assert len(told) == 1

    registry.tell_counts()
    registry.tell_counts()

    assert len(told) == 2
