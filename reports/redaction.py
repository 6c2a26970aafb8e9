"""Secrets taken out of everything that is written or printed, and a proof that they are out.

A site's tokens reach a report by seventeen ways that nobody thinks of: the arguments in a traceback, a local in
an assertion's text, ``os.environ`` in a failing assert, a subprocess's command line, a URL in an exception.
Matching the whole value is not enough, because pytest shortens long values (a 400-character key as an argument
leaves half of its pieces) and prints a PEM file line by line. So a secret is known here by its *pieces*: every
window of ten characters of its value, of its lines, and of its common disguises (base64 at its three alignments,
hex, percent-encoding, JSON, HTML and repr escapes). Text is sampled every third character: any leaked run of
twelve characters or more is found, at a cost that is linear in the text and does not grow with the secrets.

What looks like a secret is taken out even when nobody registered it: private key blocks, credentials in URLs, and
Authorization headers.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any
from urllib.parse import quote, quote_plus

from fixtures.secret import Secret

MASK = "****"
WINDOW = 10
STRIDE = 3
# A value shorter than this cannot be told from ordinary text.
SHORTEST = 4
# So many characters beside "..." are taken for a stump of a secret.
STUMP = 5
_DOTS = re.compile(r"\.\.\.|…")
_BOUNDARY = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]+-----")
_SHAPES = (
    re.compile(r"(-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----).*?(-----END [A-Z0-9 ]*PRIVATE KEY-----)", re.DOTALL),
    re.compile(r"(\b[a-z][a-z0-9+.-]{1,12}://[^/\s:@\"'<>]*:)[^/\s@\"'<>*]+(@)", re.IGNORECASE),
    re.compile(
        r"(\bauthorization[\"']?\s*[:=,]\s*b?[\"']?(?:token|bearer|basic)\s+)[^\s\"'<>,}\\*]+()",
        re.IGNORECASE,
    ),
)


class Redactor:
    """Knows a set of secrets and takes them out of text. Safe to extend while a run goes on (`add`)."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._pieces: dict[str, str] = {}
        self._short: dict[str, str] = {}
        self._values: dict[str, str] = {}
        self.too_short: list[str] = []
        for secret in secrets:
            self.add(secret)

    def add(self, secret: Secret) -> None:
        """Take one more secret into account; its `where` names it in reports, its value never does."""
        value = secret.reveal()
        if len(value.strip()) < SHORTEST:
            if value.strip():
                self.too_short.append(secret.where)
            return
        self._values[value] = secret.where
        for form in _forms(value):
            if len(form) < WINDOW + STRIDE - 1:
                self._short[form] = secret.where
            if len(form) >= WINDOW:
                for start in range(len(form) - WINDOW + 1):
                    self._pieces.setdefault(form[start : start + WINDOW], secret.where)

    def clean(self, text: str) -> str:
        """The text with every secret, and every piece of one, replaced by asterisks."""
        spans = _merged(sorted(self._spans(text)))
        if spans:
            kept, at = [], 0
            for start, end in spans:
                kept += [text[at:start], MASK]
                at = end
            text = "".join([*kept, text[at:]])
        for shape in _SHAPES:
            text = shape.sub(rf"\1{MASK}\2", text)
        return text

    def clean_value(self, value: Any) -> Any:
        """The same for plain data: strings inside maps, lists and tuples."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, Secret):
            return MASK
        if isinstance(value, Mapping):
            return {self.clean_value(key): self.clean_value(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean_value(one) for one in value]
        return value

    def leaks(self, text: str) -> list[str]:
        """Which secrets (by `where`) the text still holds a piece of, each once; empty is the good answer."""
        found = {where for start, _, where in self._hits(text) if start >= 0}
        return sorted(found)

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        for start, end, _ in self._hits(text):
            yield start, end

    def _hits(self, text: str) -> Iterator[tuple[int, int, str]]:
        for form, where in self._short.items():
            start = text.find(form)
            while start >= 0:
                yield start, start + len(form), where
                start = text.find(form, start + 1)
        yield from self._stumps(text)
        pieces, at, length = self._pieces, 0, len(text)
        if not pieces:
            return
        while at <= length - WINDOW:
            piece = pieces.get(text[at : at + WINDOW])
            if piece is None:
                at += STRIDE
                continue
            start, end = at, at + WINDOW
            while start > 0 and text[start - 1 : start - 1 + WINDOW] in pieces:
                start -= 1
            while text[end - WINDOW + 1 : end + 1] in pieces and end < length:
                end += 1
            yield start, end, piece
            at = end

    def _stumps(self, text: str) -> Iterator[tuple[int, int, str]]:
        """The few characters of a value that stand beside the dots by which pytest shortened it."""
        for dots in _DOTS.finditer(text):
            for size in range(WINDOW + STRIDE, STUMP - 1, -1):
                start, end = dots.start() - size, dots.end() + size
                before = text[start : dots.start()] if start >= 0 else ""
                after = text[dots.end() : end] if end <= len(text) else ""
                for value, where in self._values.items():
                    if before and before in value:
                        yield start, dots.start(), where
                    if after and after in value:
                        yield dots.end(), end, where


def _forms(value: str) -> set[str]:
    """The value and its disguises; of several lines, each by itself, because so a PEM is printed."""
    lines = [line.strip() for line in value.splitlines() if not _BOUNDARY.search(line)]
    plain = {one for one in (value.strip(), *lines) if len(one) >= SHORTEST and not _BOUNDARY.fullmatch(one)}
    if len(lines) > 1 or _BOUNDARY.search(value):
        plain.discard(value.strip())
        plain.add("".join(lines))
    forms = set(plain)
    for one in plain:
        data = one.encode()
        forms |= {quote(one, safe=""), quote(one), quote_plus(one), data.hex(), data.hex().upper()}
        forms |= {
            escape(one),
            json.dumps(one)[1:-1],
            json.dumps(one, ensure_ascii=False)[1:-1],
            repr(one)[1:-1],
        }
        forms |= {form for shift in range(3) for form in _base64_at(data, shift)}
        forms.add(one[::-1])
    whole = value.encode()
    forms |= {form for shift in range(3) for form in _base64_at(whole, shift)}
    return {form for form in forms if len(form) >= SHORTEST}


def _base64_at(data: bytes, shift: int) -> tuple[str, str]:
    """What of the data shows in a base64 text when `shift` bytes stand before it; both alphabets."""
    padded = b"\0" * shift + data
    whole = len(padded) - len(padded) % 3
    first = 4 if shift else 0
    # The last group depends on what follows the secret, unless nothing does.
    text = base64.b64encode(padded[:whole]).decode()[first:]
    return text, text.replace("+", "-").replace("/", "_")


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
