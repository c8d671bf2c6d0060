from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from moat.plugins.discovery import candidates
from moat.plugins.scan import Entry, scan

GROUP = "moat"


def install(folder: Path, name: str, entries: str, *, version: str = "1.0", info: str = "dist-info") -> Path:
    """Lay down what pip leaves of a distribution, its code aside."""
    made = folder / f"{name.replace('-', '_')}-{version}.{info}"
    made.mkdir(parents=True)
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: not-this\n"
    (made / "METADATA").write_text(about)
    (made / "PKG-INFO").write_text(about)
    (made / "entry_points.txt").write_text(entries)
    return folder


def as_metadata_has_it(*path: Path) -> list[tuple[str, str, str, str]]:
    seen: dict[str, metadata.Distribution] = {}
    for each in metadata.distributions(path=[str(folder) for folder in path]):
        seen.setdefault(each.name.lower().replace("_", "-"), each)
    return sorted(
        (entry.name, entry.value, each.name, each.version)
        for each in seen.values()
        for entry in each.entry_points
        if entry.group == GROUP
    )


def test_what_is_installed_here_is_found_as_importlib_metadata_has_it() -> None:
    found = scan(GROUP)

    assert found
    asked = candidates(metadata.entry_points(group=GROUP))
    assert [(each.title, each.version) for each in candidates(found)] == [(each.title, each.version) for each in asked]


@pytest.mark.parametrize(
    "entries",
    [
        "[moat]\na = json\nb = json:dumps\n",
        "[console_scripts]\nmoat = x:main\n\n[ moat ]\na=json\n[moat]\n# a = no\n\n  b =  json : dumps\n",
        "[moat.rewriters]\nc = json\n\n[moat]\nb = json\n",
        "[other]\nmoat = json\n",
        "",
    ],
)
def test_entries_are_read_as_importlib_metadata_reads_them(tmp_path: Path, entries: str) -> None:
    install(tmp_path, "moat-provider-x", entries)

    assert sorted(map(tuple, scan(GROUP, [str(tmp_path)]) or [])) == as_metadata_has_it(tmp_path)


def test_the_first_on_the_path_hides_the_others(tmp_path: Path) -> None:
    old = install(tmp_path / "old", "moat_provider.X", "[moat]\na = json\n", version="0.9")
    new = install(tmp_path / "new", "moat-provider-x", "[moat]\na = re\n")
    silent = install(tmp_path / "silent", "Moat-Provider-x", "", info="egg-info")

    assert scan(GROUP, [str(new), str(old)]) == [Entry("a", "re", "moat-provider-x", "1.0")]
    assert scan(GROUP, [str(silent), str(old)]) == []


def test_what_is_not_there_or_offers_nothing_is_passed_over(tmp_path: Path) -> None:
    install(tmp_path, "flask", "[console_scripts]\nflask = flask:main\n")
    (tmp_path / "bare-1.dist-info").mkdir()
    (tmp_path / "file-1.egg-info").write_text("Name: file\n")

    assert scan(GROUP, [str(tmp_path), str(tmp_path / "python311.zip")]) == []


def an_egg(folder: Path) -> None:
    install(folder, "moat-provider-x", "[moat]\na = json\n", info="egg-info")


def extras(folder: Path) -> None:
    install(folder, "moat-provider-x", "[moat]\na = json [fast]\n")


def nameless(folder: Path) -> None:
    (install(folder, "moat-provider-x", "[moat]\na = json\n") / "moat_provider_x-1.0.dist-info/METADATA").write_text("")


def not_text(folder: Path) -> None:
    made = install(folder, "moat-provider-x", "") / "moat_provider_x-1.0.dist-info"
    (made / "entry_points.txt").write_bytes(b"[moat]\na = \xff\n")


@pytest.mark.parametrize("make", [an_egg, extras, nameless, not_text])
def test_what_only_importlib_metadata_understands_is_left_to_it(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)

    assert scan(GROUP, [str(tmp_path)]) is None


def test_archives_and_other_finders_are_left_to_importlib_metadata(tmp_path: Path) -> None:
    archive = tmp_path / "plugins.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("x-1.dist-info/entry_points.txt", "[moat]\na = json\n")

    class Finder:
        def find_distributions(self, context: object) -> list[object]:
            return []

    assert scan(GROUP, [str(archive)]) is None
    assert scan(GROUP, [], [*sys.meta_path, Finder()]) is None
    assert scan(GROUP, [], [each for each in sys.meta_path if not hasattr(each, "find_distributions")]) is None


def test_the_backport_of_importlib_metadata_changes_nothing(tmp_path: Path) -> None:
    install(tmp_path, "moat-provider-x", "[moat]\na = re\n")

    program = (
        "import sys; sys.path[:0] = [sys.argv[1]]; import importlib_metadata; from moat.plugins.scan import scan; "
        "print([entry.name for entry in scan('moat', [sys.argv[1]])])"
    )

    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout == "['a']\n"


def test_an_entry_is_loaded_as_it_says() -> None:
    import json

    assert Entry("a", "json", "d", "1").load() is json
    assert Entry("a", "json:JSONDecoder.decode", "d", "1").load() is json.JSONDecoder.decode
    with pytest.raises(ModuleNotFoundError):
        Entry("a", "no_such_module", "d", "1").load()
