from __future__ import annotations

from moat.config.sections import Hooks, MountEntry, Snapshots, Workspace


def test_a_section_that_says_nothing_changes_nothing() -> None:
    assert Workspace().mode == "bind"
    assert Hooks().post_build == ""
    assert not MountEntry(source="a", target="/a").read_only


def test_what_is_hidden_is_kept_in_its_order() -> None:
    assert Workspace.model_validate({"exclude": ["b", "a/**"]}).exclude == ("b", "a/**")
    assert MountEntry.model_validate({"source": "a", "target": "/a", "exclude": ["*.key"]}).exclude == ("*.key",)


def test_one_hook_needs_no_list() -> None:
    assert Hooks.model_validate({"pre_run": "npm ci"}).pre_run == ("npm ci",)
    assert Hooks.model_validate({"pre_run": ["a", "b"]}).pre_run == ("a", "b")


def test_snapshots_say_nothing_unless_they_are_asked() -> None:
    assert (Snapshots().before, Snapshots().every) == (None, None)
    assert Snapshots.model_validate({"before": "true", "every": "1m"}) == Snapshots(before=True, every=60)
