"""Removes the credentials of a run from what comes back: from heads, and from bodies of any length as they stream.

What is removed is replaced by `[moat:redacted]`, cut or padded to the same number of bytes: no length, offset or frame
ever changes. Sans-IO. A stream is never delayed, but for a tail that may be the beginning of a secret:

    feed(b"data: ghp_s3c") ─▶ b"data: "        feed(b"r3t!") ─▶ b"[moat:red!"        finish() ─▶ b""
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from moat.proxy.renderings import Needle, needles
from moat.proxy.search import holds

_MASK = b"[moat:redacted]"
_HINT_BYTES = 4  # of a form's beginning: enough to find candidates by
PROMPT_BYTES = 4  # of a secret's beginning: fewer are met by chance at the end of what is said
_MAX_REMEMBERED = 64  # of one run, the latest: each costs time on every byte


class Scrub:
    """What to look for. Made once per set of secrets, shared by every stream. Never shows what it holds."""

    def __init__(self, secrets: Iterable[str]) -> None:
        unique = dict.fromkeys(needle for secret in secrets for needle in needles(secret))
        self._needles: tuple[Needle, ...] = tuple(unique)
        forms = tuple(dict.fromkeys(form for needle in self._needles for form in needle.forms))
        self._anchored = tuple((needle.anchor, needle.forms) for needle in self._needles)
        self._by_hint = {hint: [form for form in forms if form.startswith(hint)] for hint in map(_hint, forms)}
        self._bytes = frozenset(b"".join(forms))
        self._longest = max(map(len, forms), default=0)

    def __bool__(self) -> bool:
        return bool(self._needles)

    def stream(self, found: Callable[[int], None] | None = None) -> ScrubbedStream:
        """Return the state of one body. found: told how many secrets were taken out, when some were."""
        return ScrubbedStream(self, found)

    def count(self, data: bytes) -> int:
        """Return how many secrets are taken out of data."""
        return _count(self.find(data), 0)

    def text(self, text: str) -> str:
        """Return a head's text (latin-1) without secrets."""
        data = text.encode("latin-1")
        found = self.find(data)
        return _masked(data, found, 0).decode("latin-1") if found else text

    def whole(self, data: bytes) -> bytes:
        """Return a body that is all there without secrets."""
        found = self.find(data)
        return _masked(data, found, 0) if found else data

    def headers(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return header fields without secrets; a field whose name holds one is dropped."""
        if not self.find("\n".join([part for pair in pairs for part in pair]).encode("latin-1")):
            return pairs
        return [(name, self.text(value)) for name, value in pairs if self.text(name) == name]

    def find(self, data: bytes) -> list[tuple[int, int]]:
        """Return where secrets stand in data: (start, end), by start, the longest first."""
        found: list[tuple[int, int]] = []
        for anchor, forms in self._anchored:
            if holds(data, anchor):
                for form in forms:
                    found += _occurrences(form, data)
        if found:
            found.sort(key=lambda span: (span[0], -span[1]))
        return found

    def held(self, data: bytes) -> int:
        """Return how many bytes at data's end may begin a secret: at most the longest form less 1."""
        if not data or data[-1] not in self._bytes:
            return 0
        tail = data[1 - self._longest :]
        return max([_overlap(tail, hint, forms) for hint, forms in self._by_hint.items()])


class ScrubbedStream:
    """One body on its way.

    raw, clean: the tail that is held back, as it came and as it will leave. covered: how much of it is replaced: a
    secret within that is part of a longer one, whose beginning may have left.
    """

    def __init__(self, scrub: Scrub, found: Callable[[int], None] | None = None) -> None:
        self._scrub = scrub
        self._found = found
        self._raw = b""
        self._clean = b""
        self._covered = 0

    def feed(self, payload: bytes) -> bytes:
        """Return what may leave now, b"" for nothing."""
        raw, clean = (self._raw + payload, self._clean + payload) if self._raw else (payload, payload)
        found = self._scrub.find(raw)
        if found:
            clean = _masked(clean, found, self._covered)
            if self._found is not None:
                self._found(_count(found, self._covered))
            self._covered = max(self._covered, *(end for _, end in found))
        cut = len(raw) - self._scrub.held(raw)
        if cut == len(raw):
            self._raw, self._clean, self._covered = b"", b"", 0
            return clean
        self._raw, self._clean, self._covered = raw[cut:], clean[cut:], max(0, self._covered - cut)
        return clean[:cut]

    def look_for(self, scrub: Scrub) -> None:
        """Look for other secrets from now on: the run has spent more. What has left has left."""
        self._scrub = scrub

    def finish(self) -> bytes:
        """Return what was held back: the body is over, so it was no secret."""
        rest, self._raw, self._clean, self._covered = self._clean, b"", b"", 0
        return rest


class PromptStream:
    """One stream without ends of its own: what begins a secret waits only from PROMPT_BYTES on.

    A service may say its last word and wait for the other side's (a terminal, a database): a tail of a few bytes is
    likely no secret, and leaves. It is remembered: of a secret that follows from there, all but those bytes is hidden.
    """

    def __init__(self, scrub: Callable[[], Scrub], found: Callable[[int], None] | None = None) -> None:
        self._scrub = scrub
        self._found = found
        self._raw = b""
        self._clean = b""
        self._left = 0  # how much of it has left already
        self._covered = 0

    @property
    def is_waiting(self) -> bool:
        """Whether something is held back."""
        return self._left < len(self._raw)

    @property
    def is_remembering(self) -> bool:
        """Whether its end may begin a secret, held back or not."""
        return bool(self._raw)

    def feed(self, payload: bytes) -> bytes:
        """Return what may leave now, b"" for nothing."""
        scrub = self._scrub()
        raw, clean, left = self._raw + payload, self._clean + payload, self._left
        if found := scrub.find(raw):
            clean = _masked(clean, found, self._covered)
            if self._found is not None:
                self._found(_count(found, self._covered))
            self._covered = max(self._covered, *(end for _, end in found))
        held = scrub.held(raw)
        cut = len(raw) - held
        until = max(left, cut if held >= PROMPT_BYTES else len(raw))
        self._raw, self._clean = raw[cut:], clean[cut:]
        self._left, self._covered = max(0, until - cut), max(0, self._covered - cut)
        return clean[left:until]

    def finish(self) -> bytes:
        """Return what was held back: the stream is over, so it was no secret."""
        rest, self._raw, self._clean, self._left, self._covered = self._clean[self._left :], b"", b"", 0, 0
        return rest


class Spent:
    """The secrets that a run has sent upstream in its life. Survives the run's replacement: old ones may come back.

    scrub: what is removed from answers. What it may still send (`expect`) is known too, for what is written down.
    """

    def __init__(self) -> None:
        self._secrets: dict[str, None] = {}
        self._expected: tuple[str, ...] = ()
        self._known: Scrub | None = None
        self.scrub = Scrub(())

    def expect(self, secrets: Iterable[str]) -> None:
        """Take the secrets of the run's rules as they are now, as many as are looked for."""
        self._expected, self._known = tuple(islice(dict.fromkeys(secrets), _MAX_REMEMBERED)), None

    def unsaid(self, text: str) -> str:
        """Return text (latin-1) without any secret of the run, for records."""
        return self.known.text(text)

    @property
    def known(self) -> Scrub:
        """What to look for in what is written down: what was sent, and what may yet be."""
        if self._known is None:
            self._known = Scrub((*self._secrets, *self._expected))
        return self._known

    def add(self, secrets: Iterable[str]) -> None:
        """Remember secrets that are about to leave."""
        new = [each for each in secrets if each not in self._secrets]
        if not new:
            return
        self._known = None
        self._secrets |= dict.fromkeys(new)
        while len(self._secrets) > _MAX_REMEMBERED:
            del self._secrets[self._least_needed(new)]
        self.scrub = Scrub(self._secrets)

    def _least_needed(self, new: Sequence[str]) -> str:
        """Return the oldest secret that no rule has any more: who renews a grant again and again hides no other one."""
        needed = {*self._expected, *new}
        return next((each for each in self._secrets if each not in needed), next(iter(self._secrets)))


def mask(length: int) -> bytes:
    """Return what stands in for a secret of length bytes."""
    if length <= len(_MASK):
        return _MASK[:length]
    return _MASK[:-1] + b"*" * (length - len(_MASK)) + _MASK[-1:]


def _masked(data: bytes, spans: Iterable[tuple[int, int]], covered: int) -> bytes:
    """Return data with spans replaced in their order, without those that lie within what is covered."""
    out = bytearray(data)
    for start, end in spans:
        if end > covered:
            out[start:end] = mask(end - start)
            covered = end
    return bytes(out)


def _count(spans: Iterable[tuple[int, int]], covered: int) -> int:
    """Return how many of spans, in their order, are replaced as one of their own; see _masked."""
    count = 0
    for start, end in spans:
        count += start >= covered
        covered = max(covered, end)
    return count


def _occurrences(form: bytes, data: bytes) -> Iterable[tuple[int, int]]:
    at = data.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = data.find(form, at + 1)


def _hint(form: bytes) -> bytes:
    return form[:_HINT_BYTES]


def _overlap(tail: bytes, hint: bytes, forms: Iterable[bytes]) -> int:
    """Return the length of the longest end of tail that is a beginning of a form, and not all of it."""
    at = tail.find(hint)
    while at >= 0:
        end = tail[at:]
        if any([len(form) > len(end) and form.startswith(end) for form in forms]):
            return len(end)
        at = tail.find(hint, at + 1)
    return next((count for count in range(_HINT_BYTES - 1, 0, -1) if tail.endswith(hint[:count])), 0)
