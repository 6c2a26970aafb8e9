"""From night to night: links to the runs around this one, and what changed since the run before."""

from __future__ import annotations

import re

from fixtures.journal.past_runs import Neighbours, PastRun
from fixtures.journal.run_record import RunRecord
from fixtures.journal.since import differences
from fixtures.journal.words import clock, day
from reports.html_safety import Html, h
from reports.parts import heading, marked
from reports.words import verdict_word

INDEX = "../../index.html"
_LINKS = re.compile(r'<nav class="nights".*?</nav>', re.DOTALL)


def links(nights: Neighbours | None) -> Html | None:
    """Links to the history, to the runs before and after, and to the run that recovered this one."""
    if nights is None:
        return None
    items = [h("a", "All runs", href=INDEX)]
    items += [_link("Before", nights.before)] if nights.before else []
    items += [_link("After", nights.after)] if nights.after else []
    if settled_by := nights.run.settled_by:
        items.append(h("a", f"Recovered by {settled_by}", href=f"../{settled_by}/report.html"))
    return h("nav", h("ul", [h("li", item) for item in items]), cls="nights", aria_label="Other runs")


def replace_links(page: str, nights: Neighbours) -> str:
    """A finished page with its links made anew, because a later run has ended."""
    made = links(nights) or ""
    return _LINKS.sub(lambda _found: made, page, count=1)


def since(record: RunRecord, nights: Neighbours | None) -> Html:
    """What changed since the last run of the same system."""
    before = nights.before if nights else None
    return h(
        "section",
        heading("Since the run before", "since"),
        _differences(before, nights.run) if nights and before else _first(record),
        id="since",
    )


def _first(record: RunRecord) -> Html:
    what = "this world" if record.rehearsal else "this site"
    return h("p", f"No earlier run of {what} is on record.", cls="hint")


def _differences(before: PastRun, now: PastRun) -> Html:
    found = differences(before, now)
    compared = h("p", "Compared with ", _link("", before), f", a run of mode {before.mode}.", cls="hint")
    if not found:
        return h("div", h("p", h("strong", "Nothing changed."), cls="nothing"), compared)
    return h("div", h("ul", [h("li", marked(one)) for one in found], cls="differences"), compared)


def _link(label: str, run: PastRun) -> Html:
    said = f"{label}: " if label else ""
    word = verdict_word(run.verdict).headline.lower()
    return h(
        "a", f"{said}{day(run.started)} {clock(run.started)}, {word}", href=f"../{run.folder.name}/report.html"
    )
