"""What a build sees lies below /dev, all of it, and nothing in it leads elsewhere."""

from __future__ import annotations

from moat.config.dependencies import checked_dependencies
from moat.runs.build_files import COMMAND, build_files
from moat.runs.recipe import make_recipe
from moat.runs.trust import DOOR_URL

from core.runs.plans import OURS

RECIPE = make_recipe(checked_dependencies(["rust"]), "debian", "sha256:a")
FILES = build_files(RECIPE, "", OURS)


def test_every_file_is_below_dev_and_none_names_a_place_of_a_runs() -> None:
    assert {path.rpartition("/")[0] for path in FILES} == {"/dev/moat"}
    assert [path for path, text in FILES.items() if "/etc/moat" in text] == []


def test_the_script_is_the_recipe_with_the_way_out_before_it() -> None:
    script = FILES[COMMAND[-1]]

    assert script.endswith(RECIPE.text)
    exports = script.removesuffix(RECIPE.text).splitlines()
    assert all(line.startswith("export ") for line in exports)
    assert f"export HTTPS_PROXY={DOOR_URL}" in exports
    assert "export PIP_CERT=/dev/moat/ca-bundle.pem" in exports
    assert "export APT_CONFIG=/dev/moat/apt.conf" in exports


def test_every_file_that_the_script_and_the_settings_name_is_there() -> None:
    named = {word for text in FILES.values() for word in text.replace('"', " ").replace("=", " ").split()}

    assert {word.rstrip(";") for word in named if word.startswith("/dev/moat")} <= FILES.keys()
    assert FILES["/dev/moat/ca.pem"] == FILES["/dev/moat/ca-bundle.pem"] == OURS
