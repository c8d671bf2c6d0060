from __future__ import annotations

import pytest
from moat.cli import main


def test_a_run_and_an_agent_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["join", "otter"]) == 2
    assert "AGENT" in capsys.readouterr().err


def test_an_agent_that_is_not_there_is_told_with_what_installs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["join", "otter", "chum", "-p", "x"]) == 2

    said = capsys.readouterr().err
    assert "no agent called 'chum' is installed" in said
    assert "pip install moat-provider-chum" in said
