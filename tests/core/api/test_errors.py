from __future__ import annotations

import inspect

import pytest
from moat.api import errors
from moat.api.errors import MoatError, StoreCorrupt, StoreError, StoreLocked, UsageError

ALL = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, MoatError)]


def test_an_error_carries_problem_hint_and_exit_code() -> None:
    error = MoatError("no token", hint="run: moat grant github", exit_code=7)

    assert (error.problem, error.hint, error.exit_code, str(error)) == (
        "no token",
        "run: moat grant github",
        7,
        "no token",
    )


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_drawn_tree_and_explained(kind: type[MoatError]) -> None:
    assert f" {kind.__name__} " in (errors.__doc__ or "") or f"\n    {kind.__name__} " in (errors.__doc__ or "")
    assert inspect.getdoc(kind)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_only_wrong_usage_exits_with_2(kind: type[MoatError]) -> None:
    assert kind("x").exit_code == (2 if kind is UsageError else 1)


def test_causes_of_the_store_are_kept_apart_but_caught_together() -> None:
    assert not issubclass(StoreLocked, StoreCorrupt)
    assert {StoreLocked.__base__, StoreCorrupt.__base__} == {StoreError}
