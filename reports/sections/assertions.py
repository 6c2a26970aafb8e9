"""Every assertion, by phase: what was asserted, expected and seen, and a command that shows it again.

Nineteen recipes in six phases would repeat each sentence nineteen times. So assertions are grouped by test: the text
that they share, but for the recipe's name, is written once, and each recipe has a line for the rest. Failed assertions
come first and are always shown in full.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fixtures.journal.run_record import PHASES, Assertion, RunRecord
from fixtures.journal.words import plural, short, span
from reports.html_safety import Html, h
from reports.parts import command, heading, permalink

# Stands for the recipe in a text that all recipes share.
SLOT = "RECIPE"
_TONES = {"passed": "y", "failed": "n", "error": "n", "skipped": "u"}
# So many failures of a phase are shown in full; the others have their line in the table.
FULL_FAILURES = 60


@dataclass(frozen=True)
class TestGroup:
    """The assertions of one test, and the texts that all of them share with the recipe's name left open."""

    title: str
    shared: tuple[tuple[str, str], ...]
    members: tuple[Assertion, ...]

    @property
    def own(self) -> tuple[str, ...]:
        """The fields in which the members differ."""
        shared = {name for name, _ in self.shared}
        return tuple(name for name in ("what", "expected", "check") if name not in shared)


def assertions(record: RunRecord) -> Html:
    counted = Counter(one.outcome for one in record.assertions)
    said = ", ".join(f"{counted[name]:,} {name}" for name in ("passed", "failed", "skipped") if counted[name])
    ran = len(record.assertions)
    planned = record.planned_tests
    recovers = record.mode == "recover"
    missing = planned - ran if planned is not None and not recovers else 0
    numbers = sorted({one.phase for one in record.assertions if one.phase is not None})
    loose = [one for one in record.assertions if one.phase is None]
    return h(
        "section",
        heading("Every assertion", "assertions"),
        h(
            "p",
            f"{said or ('None: a recovery checks nothing' if recovers else 'None was made')}.",
            f" {missing:,} of {planned:,} planned tests have no result." if missing > 0 else "",
            cls="hint",
        ),
        [_phase(record, number, [one for one in record.assertions if one.phase == number]) for number in numbers],
        _phase(record, None, loose) if loose else None,
        id="assertions",
    )


def _phase(record: RunRecord, number: int | None, members: list[Assertion]) -> Html:
    recorded = next((phase for phase in record.phases if phase.number == number), None)
    name = recorded.name if recorded else PHASES.get(number, "") if number is not None else "outside any phase"
    counted = Counter(one.outcome for one in members)
    bad = counted["failed"] + counted["error"]
    counts = [h("span", f"{counted['passed']:,} passed", cls="y")]
    if bad:
        counts.append(h("span", f"{bad:,} failed", cls="n"))
    if counted["skipped"]:
        counts.append(h("span", f"{counted['skipped']:,} skipped", cls="u"))
    if recorded:
        counts.append(h("span", span(recorded.wall_s), cls="took"))
    heading = f"Phase {number} · {name}" if number is not None else name
    return h(
        "details",
        h("summary", h("h3", heading), h("span", counts, cls="counts")),
        [_failure(one) for one in [m for m in members if m.outcome in ("failed", "error")][:FULL_FAILURES]],
        [_group(group) for group in group_by_test(members) if not _shown_in_full(group, members)],
        open=bool(bad) or len(record.assertions) <= 40,
        cls="phase",
    )


def _shown_in_full(group: TestGroup, members: list[Assertion]) -> bool:
    """Whether a group is a single failure, which is shown in full above."""
    failures = [one for one in members if one.outcome in ("failed", "error")][:FULL_FAILURES]
    return len(group.members) == 1 and group.members[0] in failures


def group_by_test(members: Sequence[Assertion]) -> list[TestGroup]:
    """Assertions by test, in the order in which they ran, each with the texts its members share."""
    tests: dict[str, list[Assertion]] = {}
    for one in members:
        tests.setdefault(one.test or one.title, []).append(one)
    return [_group_of(group) for group in tests.values()]


def _group_of(members: list[Assertion]) -> TestGroup:
    shared = []
    for name in ("what", "expected", "check"):
        forms = {_open_form(getattr(one, name), one.recipe) for one in members}
        if len(forms) == 1 and (form := forms.pop()):
            shared.append((name, form))
    titles = Counter(_open_form(one.title, one.recipe) for one in members)
    return TestGroup(titles.most_common(1)[0][0], tuple(shared), tuple(members))


def _open_form(value: str, recipe: str | None) -> str:
    return value.replace(recipe, SLOT) if recipe else value


def _group(group: TestGroup) -> Html:
    single = len(group.members) == 1
    one = group.members[0]
    name = one.recipe or SLOT if single else SLOT
    title = group.title.replace(SLOT, name) if single else group.title.removesuffix(f": {SLOT}")
    facts = {key: value.replace(SLOT, name) for key, value in group.shared}
    if facts.get("what") == title:
        del facts["what"]
    if single and (one.seen or one.message):
        facts["seen"] = short(one.seen or one.message)
    said = [(key, facts[key]) for key in ("what", "expected", "seen") if key in facts]
    pairs = [h("div", h("dt", key), h("dd", value, cls="said")) for key, value in said]
    if "check" in facts:
        pairs.append(h("div", h("dt", "again"), h("dd", h("code", facts["check"]))))
    pairs.append(h("div", h("dt", "test"), h("dd", h("code", one.nodeid if single else one.test))))
    dot = h("span", cls=f"dot {_worst(group)}", aria_hidden="true")
    return h(
        "div",
        h("h4", dot, title, h("span", _tally(group), cls="n-of")),
        h("dl", pairs, cls="shared"),
        None if single else _table(group),
        cls="group",
    )


def _worst(group: TestGroup) -> str:
    outcomes = {_TONES.get(one.outcome, "u") for one in group.members}
    return "n" if "n" in outcomes else "u" if outcomes == {"u"} else "y"


def _tally(group: TestGroup) -> str:
    passed = sum(one.outcome == "passed" for one in group.members)
    return (
        f"{group.members[0].outcome}"
        if len(group.members) == 1
        else f"{passed:,} of {len(group.members):,} passed"
    )


def _table(group: TestGroup) -> Html:
    own = group.own
    heads = ["Recipe", "Outcome", *(name.capitalize() for name in own), "Seen", "Took"]
    rows = [
        h(
            "tr",
            h("th", one.recipe or one.nodeid.partition("[")[2].rstrip("]") or one.title, scope="row"),
            h("td", one.outcome, cls=_TONES.get(one.outcome, "u")),
            [h("td", short(getattr(one, name))) for name in own],
            h("td", short(one.seen or one.message)),
            h("td", span(one.duration_s), cls="took"),
        )
        for one in group.members
    ]
    return h(
        "details",
        h("summary", plural(len(rows), "recipe" if group.members[0].recipe else "test")),
        h(
            "div",
            h(
                "table",
                h("thead", h("tr", [h("th", head, scope="col") for head in heads])),
                h("tbody", rows),
                cls="plain",
            ),
            cls="scroll",
            tabindex="0",
            role="region",
            aria_label=group.title,
        ),
        cls="members",
    )


def _failure(one: Assertion) -> Html:
    """One failure: what was asserted, expected and seen, and the command to check it."""
    anchor = "failed-" + re.sub(r"[^A-Za-z0-9]+", "-", one.nodeid.partition("::")[2] or one.nodeid).strip("-")
    facts = [
        ("What", one.what or one.title),
        ("Expected", one.expected),
        ("Seen", one.seen),
        ("Where", one.where),
    ]
    pairs = [h("div", h("dt", name), h("dd", value, cls="said")) for name, value in facts if value]
    if one.check:
        pairs.append(h("div", h("dt", "Again"), h("dd", command(one.check))))
    if one.message and one.message not in (one.seen, one.what):
        pairs.append(h("div", h("dt", "Message"), h("dd", h("pre", h("code", one.message)))))
    return h(
        "article",
        h(
            "h4",
            h("span", cls="dot n", aria_hidden="true"),
            h("span", one.title or one.nodeid),
            permalink(anchor, one.title or one.nodeid),
            h("span", "failed", cls="n-of"),
        ),
        h("dl", pairs),
        h("p", h("code", one.nodeid), cls="nodeid"),
        id=anchor,
        cls="failure",
    )
