"""The top of the page: the verdict and the figures of the run, readable in five seconds."""

from __future__ import annotations

from fixtures.journal.run_record import COLUMNS, RunRecord, stamp
from fixtures.journal.words import clock, day, span
from reports.html_safety import Html, h
from reports.words import lede, verdict_word

MODES = {
    "apply": "apply (writes)",
    "plan": "plan (writes nothing)",
    "health": "health check (writes nothing)",
    "recover": "recover (finishes or undoes what an earlier run left open)",
}
MEANINGS = {
    "mirrored": "have a mirror with upstream's main and tags",
    "covered": "have a suite under tests/",
    "polled": "are in the running bridge's poll set",
    "triggerable": "answered a !testme with a build",
    "green": "have a latest verdict that is green",
}


def banner(record: RunRecord) -> Html:
    word = verdict_word(record.verdict)
    return h(
        "header",
        _rehearsal(record),
        h(
            "div",
            h("p", h("b", "muster"), " audit record", cls="brand"),
            h(
                "h1",
                h("span", word.glyph, cls="glyph", aria_hidden="true"),
                h("span", word.headline),
                h("small", f"exit {record.exit}" if record.exit is not None else "no exit code", cls="exit"),
            ),
            h("p", record.meaning, " ", lede(record), _recovered(record), cls="lede"),
            _scope(record),
            _damage(record),
            _facts(record),
            _tally(record),
            cls="wrap",
        ),
        cls=f"top {word.tone}",
    )


def _recovered(record: RunRecord) -> str:
    return (
        " A later run has recovered what it left open; the rest of this page shows the state at its own end."
        if record.settled_by
        else ""
    )


def _rehearsal(record: RunRecord) -> Html | None:
    if not record.rehearsal:
        return None
    return h(
        "div",
        h("strong", "Rehearsal"),
        h("span", "An embedded world on this machine. No real system was read or written."),
        cls="rehearsal",
    )


def _scope(record: RunRecord) -> Html | None:
    if record.scope.whole or record.interrupted:
        return None
    return h(
        "p",
        h("strong", f"Partial run: {record.scope.words} were checked completely. "),
        "The figures below were read, and not all of them were asserted. It does not count as a night's check.",
        cls="damage",
    )


def _damage(record: RunRecord) -> Html | None:
    if record.broken:
        return h(
            "p",
            h("strong", "The hash chain of this record is broken. "),
            "A line of the journal was altered, removed or added after it was written, so nothing below can be ",
            "trusted until it has been compared with a backup. ",
            record.broken,
            cls="damage",
            role="alert",
        )
    if record.torn:
        return h(
            "p",
            "The journal's last line is incomplete, as after a power cut or a kill; it is left out.",
            cls="damage",
        )
    return None


def _facts(record: RunRecord) -> Html:
    site = "the embedded world (REHEARSAL)" if record.rehearsal else record.site
    ended, interrupted = record.last_seen, record.cut_off
    until = clock(ended) + (f" on {day(ended)}" if day(ended) != day(record.started) else "")
    facts = [
        ("Site", site),
        ("Mode", MODES.get(record.mode, record.mode)),
        ("When", f"{day(record.started)}, {clock(record.started)} to {until} UTC"),
        ("Took", span(record.wall_s) + (", up to its last line" if interrupted else "")),
        ("By", _by(record)),
        ("With", _with(record)),
        ("Run", record.run),
    ]
    if record.origin.command:
        facts.append(("Command", record.origin.command))
    if record.origin.roster_digest:
        facts.append(("Roster", f"sha256 {record.origin.roster_digest[:16]}"))
        facts.append(("Site file", f"sha256 {record.origin.site_digest[:16]}"))
    if record.settled_by:
        facts.append(("Recovered by", record.settled_by))
    if record.fault:
        facts.insert(2, ("Fault", ", ".join(record.fault) + " (injected on purpose)"))
    return h(
        "dl",
        [
            h(
                "div",
                h("dt", name),
                h("dd", _fact(record, name, value)),
                cls="wide" if name == "Command" else None,
            )
            for name, value in facts
        ],
        cls="facts",
    )


def _fact(record: RunRecord, name: str, value: str) -> Html | str:
    if name == "Command":
        return h("code", value)
    return _timed(record, value) if name == "When" else value


def _by(record: RunRecord) -> str:
    """The account and the machine."""
    user, machine = record.origin.user, record.origin.machine
    return f"{user} on {machine}" if user and machine else user or machine or "not recorded"


def _with(record: RunRecord) -> str:
    """Version and commit of muster."""
    commit = record.origin.commit
    at, changed = commit.removesuffix("-dirty")[:12], commit.endswith("-dirty")
    named = " ".join(filter(None, ["muster", record.version]))
    return f"{named}, commit {at}{', with uncommitted changes' if changed else ''}" if at else named


def _timed(record: RunRecord, shown: str) -> Html:
    return h("time", shown, datetime=stamp(record.started) or None)


def _tally(record: RunRecord) -> Html:
    """Five numbers. Triggerable and green are proven by samples, so a part of the roster is no failure there."""
    total = record.expected
    return h(
        "ul",
        [_number(column, record.count(column), total, record) for column in COLUMNS],
        cls="tally",
        aria_label="Status in numbers" if record.has_final_roll else "Status in numbers before the first write",
    )


def _number(column: str, count: int, total: int, record: RunRecord) -> Html:
    sampled = column in ("triggerable", "green")
    complete = count == total and total > 0
    reds = [row for row in record.roll if column == "green" and row.cells["green"].ok is False]
    if not record.asked(column):
        return _unasked(column, total, "not tried" if sampled else "unknown")
    tone = "good" if complete else "some" if sampled else "bad"
    known = all(row.known_red for row in reds)
    aside = h("span", f"{len(reds)} red" + (", known" if known else ""), cls=f"aside{' known' if known else ''}")
    return h(
        "li",
        h("span", h("b", f"{count:,}"), h("span", f" of {total:,}", cls="of"), cls="num"),
        h("span", column, cls="name"),
        h("span", MEANINGS[column], cls="means"),
        aside if reds else None,
        cls=tone,
    )


def _unasked(column: str, total: int, word: str) -> Html:
    return h(
        "li",
        h("span", h("b", "\N{EN DASH}"), h("span", f" of {total:,}", cls="of"), cls="num"),
        h("span", column, cls="name"),
        h("span", word, cls="means"),
        cls="none",
    )
