"""Text of other people's making, made harmless in the Markdown of a forge.

What a finding says may quote a branch, a commit message, an error of a server. On a forge such a text could call
people (``@team``), refer to and even close issues (``fixes #3``), show pictures from elsewhere, and hide what
follows it. Here every sign that Markdown or Gitea reads is escaped, and what Gitea finds by pattern in the plain
text (mentions, references, addresses: modules/references, modules/markup/html.go) is broken by a character that
nobody sees. Commit ids are left whole: a forge links one only to its own repository, and people copy them.
"""

from __future__ import annotations

import re
import unicodedata

LONGEST = 1000
UNSEEN = "\u200b"
_SIGNS = re.compile(r"([\\`*_{}\[\]()|~$^=+.!#-])")
_CALLS = re.compile(r"([@#!])(?=\S)|(?<=[A-Za-z])(:)(?=//|[a-z0-9_+-]+:)|\b(www)(?=\.)", re.IGNORECASE)
_SAFE_URL = re.compile(r"https?://[A-Za-z0-9._~:\[\]-]+(/[A-Za-z0-9._~/%?=&+-]*)?")


def plain(text: str, *, longest: int = LONGEST) -> str:
    """The text as one line that a forge shows letter for letter, cut after `longest` characters."""
    shown = "".join(one if _visible(one) else " " for one in text)
    shown = " ".join(shown.split())
    if len(shown) > longest:
        shown = shown[: longest - 1].rstrip() + "…"
    # Broken up first, escaped second: the unseen character stands between a sign and what it would call.
    broken = _CALLS.sub(lambda found: found[0] + UNSEEN, shown)
    escaped = _SIGNS.sub(r"\\\1", broken)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _visible(character: str) -> bool:
    """Whether it shows itself and nothing else: no control, no direction override, no unseen character."""
    return unicodedata.category(character)[0] not in "CZ" or character == " "


def address(url: str, own: tuple[str, ...]) -> str:
    """A link, if the address begins with one of the site's `own` and is of plain characters; else plain text."""
    mine = any(url == root or url.startswith(f"{root}/") for root in own if root)
    return f"<{url}>" if mine and _SAFE_URL.fullmatch(url) else plain(url)


def code(text: str) -> str:
    """A command to be copied: a code span that nothing in it can end."""
    shown = " ".join("".join(one if _visible(one) else " " for one in text).split())
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"
