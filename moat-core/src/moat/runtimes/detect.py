"""Chooses the runtime for a run: the one that was named, else the first of the usual ones that is ready."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from moat.api.errors import RuntimeUnavailable, UsageError
from moat.api.runtimes import Readiness, Runtime

AUTOMATIC = ("docker", "podman", "bubblewrap")  # in this order; anything else, and above all `process`, only by name


class Begun(ExitStack):
    """What runtimes have begun for a launch by this process, undone when the block ends."""

    def __init__(self) -> None:
        super().__init__()
        self._names: set[str] = set()

    def begin(self, runtime: Runtime) -> None:
        """Have a runtime begin, once."""
        if runtime.name not in self._names:
            self._names.add(runtime.name)
            self.enter_context(runtime.begun())


async def choose(runtimes: Iterable[Runtime], name: str, image: str, begun: Begun | None = None) -> Runtime:
    """Return the runtime called name, or with name "" the first of AUTOMATIC that is ready. image: for containers.

    begun: those that are looked at begin, since this process is to launch.

    Raises UsageError for a name that nobody has, RuntimeUnavailable with what to install when nothing is ready.
    """
    known = {runtime.name: runtime for runtime in runtimes}
    if name:
        return await _named(known, name, image, begun)
    reasons: list[tuple[str, Readiness]] = []
    for candidate in (known[each] for each in AUTOMATIC if each in known):
        readiness = await _ready(candidate, image, begun)
        if readiness.is_ready:
            return candidate
        reasons.append((candidate.name, readiness))
    raise _nothing_ready(reasons)


async def _named(known: dict[str, Runtime], name: str, image: str, begun: Begun | None) -> Runtime:
    if name not in known:
        import difflib

        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean --runtime {close[0]}?" if close else f"installed: {', '.join(sorted(known))}"
        raise UsageError(f"there is no runtime called {name!r}", hint=hint)
    readiness = await _ready(known[name], image, begun)
    if not readiness.is_ready:
        raise RuntimeUnavailable(f"the runtime {name} cannot be used: {readiness.detail}", hint=readiness.hint)
    return known[name]


async def _ready(runtime: Runtime, image: str, begun: Begun | None) -> Readiness:
    if begun is not None:
        begun.begin(runtime)
    return await runtime.readiness(image)


def _nothing_ready(reasons: list[tuple[str, Readiness]]) -> RuntimeUnavailable:
    """Return an error that says why each failed. Its hint is bubblewrap's, which needs least, else the first's."""
    told = "; ".join(f"{name}: {readiness.detail}" for name, readiness in reasons) or "none is installed"
    hints = {name: readiness.hint for name, readiness in reasons}
    hint = hints.get(AUTOMATIC[-1]) or next(iter(hints.values()), "run: moat doctor")
    return RuntimeUnavailable(f"no runtime can hold a sealed run here ({told})", hint=hint)
