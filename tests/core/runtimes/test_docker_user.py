"""A name for the run's user inside."""

from __future__ import annotations

import io
import tarfile

import pytest
from moat.runtimes.docker_user import archive, with_user

IMAGE = "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/bash\n"
OURS = "moat:x:1001:1002::/home/moat:/bin/sh\n"


def test_a_user_that_the_image_lacks_is_added() -> None:
    assert with_user(IMAGE, "1001:1002", "/home/moat") == IMAGE + OURS


def test_a_file_that_does_not_end_its_last_line_stays_whole() -> None:
    assert with_user(IMAGE.rstrip("\n"), "1001:1002", "/home/moat") == IMAGE + OURS


def test_an_image_without_users_gets_one() -> None:
    assert with_user("", "1001:1002", "/home/moat") == OURS


@pytest.mark.parametrize("user", ["0:0", "1000:5"], ids=["root", "the image's own user"])
def test_a_user_that_the_image_names_is_left_alone(user: str) -> None:
    assert with_user(IMAGE, user, "/home/moat") is None


def test_an_image_that_uses_our_name_is_left_alone() -> None:
    assert with_user("moat:x:7:7::/:/bin/sh\n", "1001:1001", "/home/moat") is None


def test_the_file_is_readable_by_everybody_and_roots() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive("passwd", b"text"))) as tar:
        (entry,) = tar.getmembers()
        file = tar.extractfile(entry)

        assert (entry.name, entry.mode, entry.uid) == ("passwd", 0o644, 0)
        assert file is not None
        assert file.read() == b"text"
