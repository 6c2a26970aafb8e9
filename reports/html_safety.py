"""The only way for text into a page: escaped, by construction.

Pull request titles, comments, commit messages, build logs and unit names are written by strangers, and the page
that shows them is opened from a disk, where a script would run with a reader's rights. So nothing here joins
strings: `h` builds an element, escapes every child that is not itself the result of `h`, refuses event handlers
and style attributes, and lets only http, https and in-page links through. A Content-Security-Policy that names
the page's own scripts and styles by hash stands behind that, for the day somebody joins strings after all.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from html import escape
from typing import Any
from urllib.parse import urlsplit

from fixtures.journal.words import visible

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "col"})
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*\Z")


class Html(str):
    """Markup that came out of `h` or `raw`; every other string is text and will be escaped."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as escaped text, with control and direction-changing characters made visible."""
    return Html(escape(visible(str(value)), quote=True))


def raw(markup: str) -> Html:
    """Markup of this project's own making, for constants only; never for anything that was read from outside."""
    return Html(markup)


def join(children: Iterable[object], separator: str = "") -> Html:
    """Children one after another, each escaped unless it is markup already."""
    return Html(escape(separator).join(_child(child) for child in children))


def h(tag: str, /, *children: object, **attributes: Any) -> Html:
    """One element. `cls` is class, a trailing underscore is dropped, ``data_x`` becomes ``data-x``.

    None and False leave an attribute out, True writes it bare. Raises `ValueError` for an attribute that the
    page's policy would block (``on…``, ``style``): it would be dead in the browser and looks alive in the code.
    """
    opening = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = "class" if name == "cls" else name.rstrip("_").replace("_", "-")
        if not _NAME.match(attribute) or attribute.startswith("on") or attribute == "style":
            raise ValueError(f"attribute {attribute!r} is not written to a page")
        if attribute in ("href", "src"):
            value = safe_url(str(value))
        opening.append(attribute if value is True else f'{attribute}="{text(value)}"')
    start = " ".join(opening)
    if tag in _VOID:
        return Html(f"<{start}>")
    return Html(f"<{start}>{join(children)}</{tag}>")


def safe_url(url: str) -> str:
    """The URL itself when it is http, https without credentials, or inside the page; otherwise ``#``."""
    if url.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-][A-Za-z0-9._/-]*", url):
        return url
    try:
        parts = urlsplit(url)
        harmless = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        return "#"
    return url if harmless and "\\" not in url else "#"


def link(url: str, label: object) -> Html:
    """A link without a referrer; plain text where the URL is not harmless."""
    if safe_url(url) != url or not url.startswith(("http://", "https://")):
        return text(label)
    # Printed, a link is followed by its address, unless the address is what it says already.
    itself = str(label) in (url, url.split("://", 1)[1])
    return h("a", label, href=url, rel="noreferrer noopener", cls="self" if itself else None)


def _child(child: object) -> str:
    if child is None or child is False:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, list | tuple):
        return join(child)
    return text(child)


def csp(*, scripts: Iterable[str], styles: Iterable[str]) -> str:
    """The policy of a page whose inline scripts and styles are exactly these; nothing may be fetched."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hashes(scripts)}",
            f"style-src {_hashes(styles)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hashes(sources: Iterable[str]) -> str:
    hashed = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in sources]
    return " ".join(f"'sha256-{digest}'" for digest in hashed) or "'none'"
