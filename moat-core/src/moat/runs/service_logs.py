"""What a run's services print, kept as its own output is: runs/<id>/services/<name>/console.jsonl, without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from moat.ids import TELLING_NAME
from moat.paths import UNWRITABLE, private_folder
from moat.runs.blotting import secrets_of
from moat.runs.journal import Journal, Stream
from moat.runs.plan import RunPlan

FOLDER = "services"
LIMIT_BYTES = 8 * 1024 * 1024  # of one file; two are kept of each service


class ServiceLogs:
    """The journals of one run's services. Enter it; what comes after its end is dropped. folder: of the run."""

    def __init__(self, folder: Path, plan: RunPlan) -> None:
        self._folder = folder / FOLDER
        self._secrets = (*secrets_of(plan), *_given(plan))
        self._known = plan.known
        self._journals: dict[str, Journal] = {}

    def __enter__(self) -> ServiceLogs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for journal in self._journals.values():
            journal.close()

    def write(self, service: str, stream: Stream, data: bytes) -> None:
        """Keep what a service has printed."""
        if service not in self._journals:
            folder = self._folder / service
            with suppress(*UNWRITABLE):
                private_folder(folder)
            self._journals[service] = Journal(folder, secrets=self._secrets, known=self._known, limit_bytes=LIMIT_BYTES)
        self._journals[service].write(stream, data)


def kept_services(folder: Path) -> list[str]:
    """Return of which services something is kept. folder: of the run."""
    with suppress(FileNotFoundError):
        return sorted(each.name for each in (folder / FOLDER).iterdir())
    return []


def _given(plan: RunPlan) -> Iterator[str]:
    """Yield the passwords that the user gave services: variables whose names speak of credentials."""
    for service in plan.sandbox.services:
        yield from (value for name, value in service.env.items() if TELLING_NAME.search(name))
