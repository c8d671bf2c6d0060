from __future__ import annotations

from moat.paths import Home

from core.daemon.house import a_house


async def test_parts_show_no_secret(home: Home) -> None:
    async with a_house(home) as house:
        assert "s3cr3t" not in repr(house.parts)
