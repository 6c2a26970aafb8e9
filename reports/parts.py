"""Pieces that several sections of a page share: headings with their permanent link, commands to be copied."""

from __future__ import annotations

from reports.html_safety import Html, h


def heading(title: str, anchor: str, *more: object) -> Html:
    """A section's heading, followed by a visible link to it."""
    return h("h2", title, *more, " ", permalink(anchor, title))


def permalink(anchor: str, title: str) -> Html:
    """A visible link to a place in the page, to be sent to somebody else."""
    return h("a", "#", href=f"#{anchor}", cls="permalink", aria_label=f"Link to {title}")


def command(text: str, *, label: str = "Command") -> Html:
    """A command, whole and wrapped; the page's script puts a button beside it that copies it."""
    return h("pre", h("code", text), cls="command", tabindex="0", aria_label=label)
