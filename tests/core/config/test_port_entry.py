from __future__ import annotations

import pytest
from moat.config.port_entry import PortEntry, PortForm, port_alone
from pydantic import TypeAdapter, ValidationError

FORM: TypeAdapter[PortEntry] = TypeAdapter(PortForm)


@pytest.mark.parametrize("value", [3000, "3000", {"port": 3000}])
def test_a_number_alone_is_the_port_inside(value: object) -> None:
    assert FORM.validate_python(value) == PortEntry(port=3000)


def test_where_it_is_published_can_be_said() -> None:
    assert FORM.validate_python({"port": 3000, "publish": 13000}) == PortEntry(port=3000, publish=13000)


@pytest.mark.parametrize("value", [0, "web", {}, {"publish": 1}, {"port": 1, "publish": 65_536}, {"port": 1, "at": 2}])
def test_what_is_no_port_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        FORM.validate_python(value)


def test_the_schema_says_both_forms() -> None:
    (definition,) = FORM.json_schema()["$defs"].values() if "$defs" in FORM.json_schema() else (FORM.json_schema(),)

    assert [each["type"] for each in definition["anyOf"]] == ["integer", "object"]
    assert port_alone({"port": 1}) == {"port": 1}
