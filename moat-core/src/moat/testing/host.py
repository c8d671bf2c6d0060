"""A Host that is not a machine: everything it answers is set by the test, everything it was asked is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from moat.api.credentials import CommandResult, HttpRequest, HttpResponse
from moat.api.errors import GrantFailed

Answer = HttpResponse | int | Exception | Callable[[HttpRequest], HttpResponse]


@dataclass
class FakeHost:
    """What a provider sees of a machine.

    answers: what `ask` returns, in order; none left means that nobody can be asked. confirms: the same for `confirm`,
    where none left means no. commands: argv → result, absent means not installed. responses: URL → an HttpResponse, a
    bare status, an exception to raise, or a function of the request; absent means that the service cannot be reached.
    Afterwards `said`, `asked`, `ran` and `fetched` hold what the provider did.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    validate: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    confirms: list[bool] = field(default_factory=list)
    files: Mapping[Path, bytes] = field(default_factory=dict)
    commands: Mapping[tuple[str, ...], CommandResult | Exception] = field(default_factory=dict)
    responses: Mapping[str, Answer] = field(default_factory=dict)
    time: datetime = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    ran: list[tuple[str, ...]] = field(default_factory=list)
    fetched: list[HttpRequest] = field(default_factory=list)

    def now(self) -> datetime:
        """Return the time that the test chose."""
        return self.time

    def read(self, path: Path) -> bytes | None:
        """Return one of the files."""
        return self.files.get(path)

    def say(self, text: str) -> None:
        """Keep what the user would be told."""
        self.said.append(text)

    async def run(self, *argv: str, timeout_s: float = 10.0) -> CommandResult | None:
        """Answer from commands."""
        del timeout_s
        self.ran.append(argv)
        result = self.commands.get(argv)
        if isinstance(result, Exception):
            raise result
        return result

    async def ask(self, question: str, *, secret: bool = True) -> str:
        """Answer from answers."""
        del secret
        self.asked.append(question)
        if not self.answers:
            raise GrantFailed(f"nobody can be asked for the {question}")
        return self.answers.pop(0)

    async def confirm(self, question: str) -> bool:
        """Answer from confirms."""
        self.asked.append(question)
        return self.confirms.pop(0) if self.confirms else False

    async def fetch(self, request: HttpRequest, *, timeout_s: float = 10.0) -> HttpResponse:
        """Answer from responses."""
        del timeout_s
        self.fetched.append(request)
        answer = self.responses.get(request.url)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            return HttpResponse(answer, {}, b"")
        if isinstance(answer, HttpResponse):
            return answer
        if answer is None:
            raise GrantFailed(f"{request.url} cannot be reached", hint="add --no-validate")
        return answer(request)
