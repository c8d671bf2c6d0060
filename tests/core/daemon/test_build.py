from __future__ import annotations

import pytest
from moat.daemon.build import commit, commit_in


def test_the_commit_is_the_one_that_the_installer_wrote_down() -> None:
    assert commit_in('{"url": "https://x", "vcs_info": {"vcs": "git", "commit_id": "0123abcd"}}') == "0123abcd"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"dir_info": {}}', '{"vcs_info": {"commit_id": 7}}'])
def test_where_nothing_is_written_down_it_is_not_guessed(text: str) -> None:
    assert commit_in(text) == ""


def test_a_working_tree_has_none() -> None:
    assert commit() == ""
