"""How long fuzzing goes on, in one place: a moment by default, with the same inputs in CI, long when asked for.

@fuzzed(40)                          40 examples; MOAT_FUZZ=long: 100 times as many, other ones each time
@given(st.binary())
def test_…
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings

Test = TypeVar("Test", bound=Callable[..., object])

_ASKED = os.environ.get("MOAT_FUZZ", "1")  # read now: the tests' environment is cleared of ours
TIMES = 100 if _ASKED == "long" else int(_ASKED)


def fuzzed(examples: int) -> Callable[[Test], Test]:
    """Return the settings of a test that takes about `examples` inputs in everyday use."""
    return settings(
        max_examples=examples * TIMES,
        derandomize="CI" in os.environ and TIMES == 1,
        deadline=None,
        database=None,
        # What an example leaves behind is part of what is tested, so they share their house.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
