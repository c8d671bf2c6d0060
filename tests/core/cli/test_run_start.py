from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from moat.cli import run_start
from moat.cli.run_options import read
from moat.plugins.manager import Plugins
from moat.runtimes.bubblewrap import Bubblewrap


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What began, while plugins had not been looked for: that ends the start here."""
    names: list[str] = []

    @contextlib.contextmanager
    def begun(runtime: Bubblewrap) -> Iterator[None]:
        names.append(runtime.name)
        try:
            yield
        finally:
            names.append("over")

    def load() -> None:
        raise InterruptedError

    monkeypatch.setattr(Bubblewrap, "begun", begun)
    monkeypatch.setattr(Plugins, "load", load)
    return names


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--runtime", "bubblewrap"], ["bubblewrap", "over"]),
        ([], []),
        (["--runtime", "docker"], []),
        (["--runtime", "bubblewrap", "--dry-run"], []),
        (["--runtime", "bubblewrap", "-d"], []),
        (["--runtime", "bubblewrap", "-t"], []),
    ],
    ids=lambda each: " ".join(each) or "nothing",
)
def test_the_runtime_that_is_named_begins_first_where_this_process_is_to_hold_the_run(
    options: list[str], expected: list[str], began: list[str]
) -> None:
    typed = read(["run", *options, "--", "true"], {})
    assert typed is not None

    with pytest.raises(InterruptedError):
        run_start.start(typed)

    assert began == expected
