"""How a secret may look when a service repeats it: as it is, escaped for a URL, JSON or HTML, or inside of base64.

Pure. What a service does beyond that (encrypts, reverses, cuts into pieces) nobody can recognise.

    s3/cr3t ─┬─ as text    s3/cr3t  s3%2Fcr3t  s3%2fcr3t  s3\\/cr3t  s3\\u002fcr3t …
             └─ in base64  of anything that holds it: three alignments, two alphabets, each escaped likewise
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

MIN_SECRET_BYTES = 8  # removing shorter strings would damage ordinary answers
_MIN_ANCHOR_BYTES = 6
_NAMED = re.compile(r'(?:^|(?<=[\s;,]))[!#$%&\'*+.^_`|~0-9A-Za-z-]+="?(?:(?<=")([^"]*)|([^\s;,"]*))')
# What services want for a password where the user is the key (Toggl, GitHub of old); others want none.
_NO_PASSWORDS = frozenset(("api_token", "x-oauth-basic"))
_PLAIN_RUN = re.compile(rb"[A-Za-z0-9]+")
_PERCENT = re.compile(r"%[0-9A-F]{2}")
# What encoders leave alone: RFC 3986, Python's default, JavaScript's encodeURIComponent and encodeURI, HTML forms.
_LEFT_ALONE = ("-._~", "/-._~", "-_.!~*'()", ";/?:@&=+$,#-_.!~*'()", "*-._", "")
_JSON_MUST = {'"': '\\"', "\\": "\\\\"}
_JSON_SLASH = {**_JSON_MUST, "/": "\\/"}  # PHP
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_TEMPLATES = (  # Mustache and Handlebars; Go
    {**_HTML, '"': "&quot;", "'": "&#39;", "/": "&#x2F;", "`": "&#x60;", "=": "&#x3D;"},
    {**_HTML, '"': "&#34;", "'": "&#39;", "+": "&#43;"},
)


@dataclass(frozen=True, slots=True)
class Needle:
    """Forms that all hold one anchor: where the anchor is not, none of them is."""

    anchor: bytes = field(repr=False)
    forms: tuple[bytes, ...] = field(repr=False)


def secrets_in(value: str) -> tuple[str, ...]:
    """Return what is secret in a header's value.

    The value without its scheme, the value of each `name=value` in it (cookies, `Token token=…`), the password of
    `Basic`, or its user where that is the key.
    """
    scheme, space, rest = value.partition(" ")
    token = rest.strip() if space else value
    found = [token, token.rpartition(" ")[2]]
    if "=" in value:
        found += [named[1] or named[2] for named in _NAMED.finditer(value)]
    if scheme.lower() == "basic":
        found += _basic_parts(token)
    return tuple(dict.fromkeys(each for each in found if len(each) >= MIN_SECRET_BYTES))


def needles(secret: str) -> tuple[Needle, ...]:
    """Return every form of a secret, grouped for searching; nothing for one that is too short to be told from text."""
    raw = secret.encode("utf-8")
    if len(raw) < MIN_SECRET_BYTES:
        return ()
    found = list(_grouped(_escaped(secret), raw))
    for shift in range(3):
        core = _core(raw, shift)
        both = dict.fromkeys((core, core.replace("+", "-").replace("/", "_")))
        forms = [form for text in both for form in _escaped(text)]
        found += _grouped(forms, core.encode())
    return tuple(found)


def _basic_parts(encoded: str) -> list[str]:
    try:
        pair = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return []
    user, _, password = pair.partition(":")
    return [user if len(password) < MIN_SECRET_BYTES or password in _NO_PASSWORDS else password]


def _core(raw: bytes, shift: int) -> str:
    """Return the characters of base64 that raw alone decides when shift bytes (mod 3) stand before it."""
    encoded = base64.b64encode(b"\0" * shift + raw).decode()
    whole, left = divmod(shift + len(raw), 3)
    return encoded[(0, 2, 3)[shift] : whole * 4 + left]


def _escaped(text: str) -> list[bytes]:
    """Return text as it is, and as URL, JSON and HTML writers escape it."""
    found = [text]
    for left_alone in _LEFT_ALONE:
        upper = quote(text, safe=left_alone)
        lower = _PERCENT.sub(lambda found: found[0].lower(), upper)
        found += [upper, lower, upper.replace("%", "%25"), lower.replace("%", "%25")]  # a URL within a URL
    found += [_mapped(text, _JSON_MUST), _mapped(text, _JSON_SLASH)]
    for special in ("<>&", "<>&'\"+`", "<>&'\"+`/=:~!*()@$,;?#[]{}|^ ", "<>&'\"+`/=:~!*()@$,;?#[]{}|^ -_."):
        found += [_mapped(text, _unicode_escapes(special, digits)) for digits in ("04x", "04X")]
    found += [html.escape(text, quote=False), html.escape(text), html.escape(text).replace("/", "&#x2F;")]
    found += [_mapped(text, _TEMPLATES[0]), _mapped(text, _TEMPLATES[1])]
    return [form.encode() for form in dict.fromkeys(found)]


def _unicode_escapes(special: str, digits: str) -> dict[str, str]:
    return _JSON_MUST | {each: f"\\u{ord(each):{digits}}" for each in special}


def _mapped(text: str, escapes: dict[str, str]) -> str:
    return "".join([escapes.get(each, each) for each in text])


def _grouped(forms: Iterable[bytes], plain: bytes) -> Iterable[Needle]:
    """Group forms around the longest part of plain that no encoder touches."""
    unique = tuple(dict.fromkeys(forms))
    anchor = max(_PLAIN_RUN.findall(plain), key=len, default=b"")
    if len(anchor) >= _MIN_ANCHOR_BYTES:
        return [Needle(anchor, unique)]
    return [Needle(form, (form,)) for form in unique]
