from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from moat.api.container import ContainerSetup, Limits, Mount, merge
from moat.api.errors import PlanConflict

SOURCE = Path("/srv/data")


def test_setups_are_joined_whatever_their_order() -> None:
    parts = [
        ("github", ContainerSetup({"GH_TOKEN": "x"}, {"/etc/a": "1"}, (Mount(SOURCE, "/data"),))),
        ("aws", ContainerSetup({"AWS_REGION": "eu"}, {"/etc/b": "2"})),
        ("core", ContainerSetup()),
    ]

    results = [merge(order) for order in permutations(parts)]

    assert all(result == results[0] for result in results)
    assert results[0].env == {"AWS_REGION": "eu", "GH_TOKEN": "x"}
    assert results[0].files == {"/etc/a": "1", "/etc/b": "2"}
    assert results[0].mounts == (Mount(SOURCE, "/data"),)


def test_nothing_joined_is_nothing() -> None:
    assert merge([]) == ContainerSetup()


def test_the_same_wish_twice_is_no_conflict() -> None:
    same = ContainerSetup({"A": "1"}, {"/a": "x"}, (Mount(SOURCE, "/data"),))

    assert merge([("one", same), ("two", same)]) == same


@pytest.mark.parametrize(
    ("one", "two", "what"),
    [
        (ContainerSetup(env={"A": "1"}), ContainerSetup(env={"A": "2"}), "variable A"),
        (ContainerSetup(files={"/a": "1"}), ContainerSetup(files={"/a": "2"}), "file /a"),
        (
            ContainerSetup(mounts=(Mount(SOURCE, "/d"),)),
            ContainerSetup(mounts=(Mount(SOURCE, "/d", read_only=True),)),
            "mount /d",
        ),
    ],
    ids=["variable", "file", "mount"],
)
def test_different_wishes_name_both_contributors(one: ContainerSetup, two: ContainerSetup, what: str) -> None:
    with pytest.raises(PlanConflict) as caught:
        merge([("github", one), ("aws", two)])

    assert caught.value.problem == f"{what} is wanted differently by github and aws"


def test_limits_are_named_as_far_as_they_are_asked_for() -> None:
    assert Limits().names() == ()
    assert Limits(memory_bytes=1, pids=2, ulimits={"core": (0, 0)}).names() == ("memory", "pids", "ulimits.core")
