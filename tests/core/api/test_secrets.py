from __future__ import annotations

import pytest
from moat.api import SecretSource


def test_a_source_describes_and_fetches() -> None:
    with pytest.raises(TypeError, match="describe"):
        SecretSource()  # type: ignore[abstract] # on purpose
