"""The end of the page: versions, addresses, requests, and the hash that shows whether the record was edited."""

from __future__ import annotations

from fixtures.journal.run_record import RunRecord
from fixtures.journal.words import plural
from reports.html_safety import Html, h, link
from reports.parts import heading

# What a count of the record is of, where its name does not say so (`fixtures.run.context.Context.request_counts`).
_COUNTS = {
    "forge": "requests to the forge",
    "upstream": "requests to upstream",
    "drone": "requests to Drone",
    "news": "requests because of news",
}


def colophon(record: RunRecord) -> Html:
    pairs: list[tuple[str, object]] = [(name, value) for name, value in record.parts.items()]
    pairs += [
        (_COUNTS.get(name, name.replace("_", " ")), f"{count:,}") for name, count in record.requests.items()
    ]
    pairs += [(f"{name} address", link(url, url)) for name, url in record.urls.items()]
    if record.pace is not None:
        pairs.append(("pace", f"{record.pace:g}"))
    return h(
        "section",
        heading("About this record", "about"),
        h("dl", [h("div", h("dt", name), h("dd", value)) for name, value in pairs], cls="about")
        if pairs
        else None,
        _notes(record),
        h(
            "p",
            f"Made from {plural(record.lines, 'journal line')} and nothing else. Each line holds the hash of ",
            "the one before it; the last one is ",
            h("code", record.journal_head or "missing", cls="hash"),
            ". All times are by the clock of the machine that ran muster, in UTC.",
            cls="hint",
        ),
        id="about",
    )


def _notes(record: RunRecord) -> Html | None:
    if not record.notes:
        return None
    return h("div", h("h3", "Notes"), h("ul", [h("li", note) for note in record.notes]))
