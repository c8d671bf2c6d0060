"""Logging for the operator: one JSON object a line, constant messages, facts as fields, known secrets blotted out.

The last net, not the first: no code hands a secret to a logger. Not for talking to the user: `cli/output.py` does that.
"""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler, WatchedFileHandler
from pathlib import Path
from typing import TextIO

from moat.redaction import MAX_MARKS, MIN_SECRET_CHARS, REDACTED, SecretMarks, marks_of

KEPT_FILES = 3  # path.1 to path.3

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Redactor:
    """The secrets this process knows; a line that holds one is written without it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._secrets: tuple[str, ...] = ()
        self._longest_first: tuple[str, ...] = ()  # one may hold another, whose rest would stay

    def learn(self, secret: str) -> None:
        """Remember a secret, to be blotted out from now on. Short ones are ignored."""
        if len(secret) < MIN_SECRET_CHARS:
            return
        with self._lock:
            if secret not in self._secrets[-1:]:
                self._secrets = (*(each for each in self._secrets if each != secret), secret)
                self._longest_first = tuple(sorted(self._secrets, key=len, reverse=True))

    def clean(self, text: str) -> str:
        """Return text without any known secret."""
        for secret in self._longest_first:
            text = text.replace(secret, REDACTED)
        return text

    def marks(self) -> SecretMarks:
        """Return what the secrets that were learnt last are known by, 128 at most: for who may not hold them."""
        return marks_of(self._secrets[-MAX_MARKS:])


class JsonLines(logging.Formatter):
    """Renders a record as one JSON line; control characters are escaped by JSON, so a value cannot forge a line."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, redacted."""
        entry: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return self._redactor.clean(json.dumps(entry, default=str))


def log_to_file(path: Path, redactor: Redactor, *, limit_bytes: int = 0, also: TextIO | None = None) -> None:
    """Send this process's log to path, appended, readable by the owner only. For the daemon and the worker.

    limit_bytes: a longer file is put aside as path.1, and older ones after it; only one process may do that, and the
    others, which say 0, follow. also: where the lines go besides.
    """
    file: logging.FileHandler
    if limit_bytes:
        file = RotatingFileHandler(path, maxBytes=limit_bytes, backupCount=KEPT_FILES, encoding="utf-8")
    else:
        file = WatchedFileHandler(path, encoding="utf-8")
    path.chmod(0o600)
    handlers: list[logging.Handler] = [file]
    if also is not None:
        handlers.append(logging.StreamHandler(also))
    for handler in handlers:
        handler.setFormatter(JsonLines(redactor))
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(logging.INFO)
