"""Everybody who is told what happens to runs, as one: the plugins, the listeners of /v1/events, refresh, routing."""

from __future__ import annotations

from typing import Protocol

from moat.api.runs import ExchangeRecord, RunInfo


class Observer(Protocol):
    """One of them. Never raises, never waits."""

    @property
    def watches_exchanges(self) -> bool:
        """Whether it wants to be told of all exchanges; without that it is told of 401 answers only."""
        ...

    def run_started(self, run: RunInfo) -> None:
        """Take a run whose command may start now."""
        ...

    def run_stopped(self, run: RunInfo, exit_code: int) -> object:
        """Take a run that is over."""
        ...

    def exchange_done(self, run_id: str, exchange: ExchangeRecord) -> None:
        """Take one exchange."""
        ...


class Audience:
    """Tells each in turn."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = list(observers)

    def add(self, observer: Observer) -> None:
        """Tell one more from now on."""
        self._observers.append(observer)

    @property
    def watches_exchanges(self) -> bool:
        """Whether anybody does."""
        return any(each.watches_exchanges for each in self._observers)

    def run_started(self, run: RunInfo) -> None:
        """Tell of a run whose command may start now."""
        for each in self._observers:
            each.run_started(run)

    def run_stopped(self, run: RunInfo, exit_code: int) -> None:
        """Tell of a run that is over."""
        for each in self._observers:
            each.run_stopped(run, exit_code)

    def exchange_done(self, run_id: str, exchange: ExchangeRecord) -> None:
        """Tell of one exchange."""
        for each in self._observers:
            each.exchange_done(run_id, exchange)
