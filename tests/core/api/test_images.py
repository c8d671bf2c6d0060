from __future__ import annotations

import pytest
from moat.api.images import Images
from moat.runtimes.bubblewrap import Bubblewrap
from moat.runtimes.docker import Docker
from moat.runtimes.process import Process


def test_only_a_runtime_that_says_so_has_images() -> None:
    assert isinstance(Docker().images(), Images)
    assert [runtime().images() for runtime in (Bubblewrap, Process)] == [None, None]


def test_images_cannot_be_made_by_half() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Images()  # type: ignore[abstract] # that is what is tested
