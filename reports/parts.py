"""Pieces that several sections of a page share: headings with their permanent link, commands to be copied."""

from __future__ import annotations

import re

from reports.html_safety import Html, h, text

_CODE = re.compile(r"`([^`]+)`")


def heading(title: str, anchor: str, *more: object) -> Html:
    """A section's heading, followed by a visible link to it."""
    # No space between them: the link never stands on a line of its own.
    return h("h2", title, *more, permalink(anchor, title))


def permalink(anchor: str, title: str) -> Html:
    """A visible link to a place in the page, to be sent to somebody else."""
    return h("a", "#", href=f"#{anchor}", cls="permalink", aria_label=f"Link to {title}")


def marked(sentence: str) -> Html:
    """Text in which `backticks` mark code, as messages are written throughout muster."""
    pieces = _CODE.split(sentence)
    return Html("".join(h("code", piece) if index % 2 else text(piece) for index, piece in enumerate(pieces)))


def command(line: str, *, label: str = "Command") -> Html:
    """A command, whole and wrapped; the page's script puts a button beside it that copies it."""
    return h("pre", h("code", line), cls="command", tabindex="0", aria_label=label)
