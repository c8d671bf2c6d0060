"""Dataclasses that cost little to define: a start of `moat run` defines sixty, and no other work of its own cost more.

`dataclass` writes and compiles six methods a class, 0.3 ms of it. Here it only finds the fields, and every class shares
the methods below: a fifteenth of that to define, and some microseconds more to make a value. Everything else holds:
fields(), replace(), asdict(), match, pydantic, and other dataclasses may inherit. For a type checker it is the same.

Use it for what is defined at every start; where values are made for each request, `dataclasses` has the faster one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: Literal[True], slots: Literal[True]) -> Callable[[type[T]], type[T]]:
        """Return what makes an immutable class with slots. Both words are there for type checkers and readers."""
        del frozen, slots
        return _made


__all__ = ["dataclass"]

T = TypeVar("T")


def _made(cls: type[T]) -> type[T]:
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    made.__dataclass_params__.frozen = made.__dataclass_params__.eq = True  # for those that inherit
    for name, method in _METHODS.items():
        if name not in cls.__dict__:
            setattr(made, name, method)
    return cast("type[T]", made)


def _init(self: Any, /, *args: object, **values: object) -> None:
    known = self.__dataclass_fields__
    if len(args) > len(known):
        raise TypeError(f"{type(self).__name__} has {len(known)} fields, not {len(args)}")
    for name, value in zip(known, args, strict=False):  # the rest is named, or has a default
        if name in values:
            raise TypeError(f"{type(self).__name__} got two values for {name!r}")
        _set(self, name, value)
    for name in [*known][len(args) :]:
        _set(self, name, values.pop(name) if name in values else _default(self, known[name]))
    if values:
        raise TypeError(f"{type(self).__name__} has no field {next(iter(values))!r}")
    if (check := getattr(self, "__post_init__", None)) is not None:
        check()


def _default(self: object, field: dataclasses.Field[Any]) -> object:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is MISSING:
        raise TypeError(f"{type(self).__name__} needs a value for {field.name!r}")
    return field.default_factory()


def _repr(self: Any) -> str:
    shown = [each.name for each in self.__dataclass_fields__.values() if each.repr]
    return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


def _eq(self: Any, other: object) -> bool:
    return _compared(self) == _compared(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _compared(self: Any) -> tuple[object, ...]:
    return tuple(getattr(self, each.name) for each in self.__dataclass_fields__.values() if each.compare)


def _setattr(self: object, name: str, value: object) -> None:
    del self, value
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: object, name: str) -> None:
    del self
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[object]:
    return [getattr(self, name) for name in self.__dataclass_fields__]


def _setstate(self: Any, state: list[object]) -> None:
    for name, value in zip(self.__dataclass_fields__, state, strict=True):
        _set(self, name, value)


_set = object.__setattr__
_METHODS = {
    "__init__": _init, "__repr__": _repr, "__eq__": _eq, "__hash__": _hash, "__setattr__": _setattr,
    "__delattr__": _delattr, "__getstate__": _getstate, "__setstate__": _setstate,
}  # fmt: skip
