from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from moat.paths import Home
from moat.runs.approvals import Question, approve, is_approved

from core.runs.projects import a_checkout

QUESTION = Question(a_checkout("grants: [github]"), ("spend your credential github",))


OTHERS = json.dumps({"path": "/elsewhere", "sha256": QUESTION.checkout.sha256, "granted": list(QUESTION.wishes)})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_a_yes_is_remembered_where_only_the_user_can_write(home: Home) -> None:
    assert not is_approved(home, QUESTION)

    approve(home, QUESTION)

    assert is_approved(home, QUESTION)
    (file,) = home.approvals.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.approvals.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Question(a_checkout("grants: [github] "), QUESTION.wishes), id="one byte more"),
        pytest.param(
            Question(a_checkout("grants: [github]", Path("/elsewhere/moat.yaml")), QUESTION.wishes), id="elsewhere"
        ),
        pytest.param(Question(QUESTION.checkout, ("read /etc, as /e",)), id="another meaning"),
        pytest.param(Question(QUESTION.checkout, (*QUESTION.wishes, "read /etc, as /e")), id="one wish more"),
    ],
)
def test_it_is_for_just_that_file_and_just_what_was_shown(home: Home, other: Question) -> None:
    approve(home, QUESTION)

    assert not is_approved(home, other)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"x"', "[" * 100_000, '{"path": "/srv/work/moat.yaml"}', OTHERS])
def test_what_is_no_answer_is_no_yes(home: Home, text: str) -> None:
    approve(home, QUESTION)
    (file,) = home.approvals.iterdir()
    file.write_text(text)

    assert not is_approved(home, QUESTION)


def test_no_value_of_the_file_is_kept(home: Home) -> None:
    approve(home, Question(a_checkout("env: {A: s3cr3t}"), ("spend your credential github",)))

    (file,) = home.approvals.iterdir()
    assert "s3cr3t" not in file.read_text()


def test_each_wish_that_was_granted_stays_granted_whatever_is_asked_with_it(home: Home) -> None:
    one, other = ("read /a, as /a",), ("read /b, as /b",)
    approve(home, Question(QUESTION.checkout, one))
    approve(home, Question(QUESTION.checkout, other))

    assert is_approved(home, Question(QUESTION.checkout, (*one, *other)))
    assert is_approved(home, Question(QUESTION.checkout, other))
    assert not is_approved(home, Question(QUESTION.checkout, (*one, "read /c, as /c")))
