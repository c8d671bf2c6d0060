"""Every module has its test module at the mirrored path, and every mirrored test its module."""

from __future__ import annotations

from architecture.tree import CORE, ROOT, relative

TESTS = ROOT / "tests" / "core"
WITHOUT_A_TEST_OF_THEIR_OWN = {
    "api/hookspecs.py": "declarations only; tests/architecture/test_hooks.py and core/plugins check them",
    "daemon/protocol.py": "values only; client and server tests exchange every one",
}


def test_every_module_has_a_mirrored_test() -> None:
    missing = []
    for module in CORE.rglob("*.py"):
        inside = module.relative_to(CORE)
        if module.name == "__init__.py" or str(inside) in WITHOUT_A_TEST_OF_THEIR_OWN:
            continue
        if not (TESTS / inside.parent / f"test_{inside.name}").is_file():
            missing.append(relative(module))

    assert sorted(missing) == []


def test_every_mirrored_test_has_a_module() -> None:
    orphans = [
        relative(test)
        for test in TESTS.rglob("test_*.py")
        if not (CORE / test.relative_to(TESTS).parent / test.name.removeprefix("test_")).is_file()
    ]

    assert orphans == []


def test_exceptions_from_the_mirror_still_exist() -> None:
    assert [name for name in WITHOUT_A_TEST_OF_THEIR_OWN if not (CORE / name).is_file()] == []
