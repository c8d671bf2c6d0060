from __future__ import annotations

from dataclasses import replace

import pytest
from moat.audit.chain import BEFORE_THE_FIRST, Entry, Tip, check, linked

from core.audit.making import AT, RUN


def a_chain(count: int) -> list[Entry]:
    entries: list[Entry] = []
    tip = Tip()
    for number in range(count):
        entries.append(linked(RUN, tip, AT, "used", {"n": number}))
        tip = Tip(entries[-1].seq, entries[-1].hash)
    return entries


def test_a_chain_is_linked_from_its_first_entry_on() -> None:
    entries = a_chain(3)

    assert [entry.seq for entry in entries] == [1, 2, 3]
    assert [entry.prev for entry in entries] == [BEFORE_THE_FIRST, entries[0].hash, entries[1].hash]
    assert check(RUN, entries) == ([entry.hash for entry in entries], None)
    assert check(RUN, []) == ([], None)


def test_the_hash_is_of_what_is_documented() -> None:
    import hashlib

    (entry,) = a_chain(1)
    whole = f'{{"at":"{AT}","chain":"{RUN}","facts":{{"n":0}},"kind":"used","prev":"{"0" * 64}","seq":1,"v":1}}'

    assert entry.hash == hashlib.sha256(whole.encode()).hexdigest()


@pytest.mark.parametrize("name", ["at", "kind", "facts", "prev", "hash"])
def test_whatever_of_an_entry_is_changed_it_is_named(name: str) -> None:
    entries = a_chain(5)
    old = getattr(entries[2], name)
    entries[2] = replace(entries[2], **{name: old[:-2] + "9}" if name == "facts" else "f" + old[1:] + "0"})

    sound, fault = check(RUN, entries)

    assert sound == [entry.hash for entry in entries[:2]]
    assert fault is not None
    assert (fault.chain, fault.seq) == (RUN, 3)


def test_what_is_missing_put_in_twice_or_moved_is_named() -> None:
    entries = a_chain(5)
    one, two, three, four, five = entries

    for changed, seq in (
        ([one, two, four, five], 3),
        ([one, two, two, three, four, five], 3),
        ([one, three, two, four, five], 2),
        ([one, replace(three, seq=2), replace(two, seq=3), four, five], 2),
        ([two, three], 1),
        ([one, replace(two, chain="run_00000000000c"), three], 2),
    ):
        fault = check(RUN, changed)[1]
        assert fault is not None
        assert fault.seq == seq


def test_facts_in_another_spelling_are_a_change() -> None:
    (entry,) = a_chain(1)

    fault = check(RUN, [replace(entry, facts='{"n": 0}')])[1]

    assert fault is not None
    assert "not written as moat writes it" in fault.problem
    assert check(RUN, [replace(entry, facts="[]")])[1] is not None
