"""The statements of a finished run, each held against the journal and the world.

`untrue_statements` reads what a person and a program read (``report.html``, ``summary.json``), folds the journal
itself, and looks at the world as `tests_meta.world_view` saw it. It shares no code with what wrote the record.
"""

from __future__ import annotations

import getpass
import html
import json
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from tests_meta.muster_runs import ROOT, Ran

COLUMNS = ("mirrored", "covered", "polled", "triggerable", "green")
GOOD = ("converged", "unchanged", "planned", "recovered")
HEADLINES = {"planned": "Changes pending", "rolled-back": "Rolled back", "rollback-failed": "Rollback failed"}
TAG = re.compile(r"<[^>]+>")


class SeenWorld(Protocol):
    """What is compared of a world: refs of both forges, the poll set in git, what the bridge polls, and the host."""

    @property
    def forge(self) -> Mapping[str, Mapping[str, str]]: ...
    @property
    def upstream(self) -> Mapping[str, Mapping[str, str]]: ...
    @property
    def poll_set(self) -> tuple[str, ...]: ...
    @property
    def served(self) -> tuple[str, ...]: ...
    @property
    def host(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Change:
    """One change, folded from its lines."""

    intent: Mapping[str, Any]
    result: str
    undo: str

    @property
    def undone(self) -> bool:
        return self.undo == "undone"

    @property
    def stands(self) -> bool:
        was_there = self.result == "done" or (self.result in ("open", "unknown") and self.undo != "not-needed")
        return was_there and not self.undone


@dataclass(frozen=True)
class Finished:
    """A finished run as it can be read, and the world before and after it."""

    ran: Ran
    before: SeenWorld | None = None
    after: SeenWorld | None = None
    names: tuple[str, ...] = field(default=())

    @cached_property
    def page(self) -> str:
        assert self.ran.folder is not None
        return (self.ran.folder / "report.html").read_text(encoding="utf-8")

    @cached_property
    def summary(self) -> dict[str, Any]:
        return self.ran.summary

    @cached_property
    def own_lines(self) -> list[dict[str, Any]]:
        return self.ran.lines

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.own_lines if line["type"] == kind]

    @cached_property
    def changes(self) -> list[Change]:
        outcomes = {line["change"]: line["result"] for line in self.of("outcome")}
        undos = {line["change"]: line["result"] for line in self.of("undo")}
        return [
            Change(one, outcomes.get(one["change"], "open"), undos.get(one["change"], ""))
            for one in self.of("intent")
        ]

    def words(self, start: str, end: str) -> str:
        """The text of the page between two marks."""
        part = self.page.partition(start)[2].partition(end)[0]
        return " ".join(html.unescape(TAG.sub(" ", part)).split())


def untrue_statements(finished: Finished) -> list[str]:
    """Every statement that is not so; empty for a record that can be relied on."""
    checks = (
        _ending,
        _origin,
        _counts,
        _changes,
        _figures,
        _mirrors,
        _polled,
        _host,
        _outcomes,
        _by_hand,
        _to_do,
    )
    return [
        f"{check.__name__[1:]}: {wrong}" for check in (*checks, _settled, _stopped) for wrong in check(finished)
    ]


def _ending(one: Finished) -> Iterator[str]:
    end = one.of("end")[-1]
    told = (one.summary["exit"], one.summary["verdict"])
    if told != (end["exit"], end["verdict"]) or told[0] != one.ran.exit:
        yield f"the summary says {told}, the journal {end['exit']} {end['verdict']}, the process {one.ran.exit}"
    headline = HEADLINES.get(told[1], told[1].capitalize())
    if headline not in one.words("<h1>", "</h1>") or f"exit {told[0]}" not in one.words("<h1>", "</h1>"):
        yield f"the page is headed {one.words('<h1>', '</h1>')}"
    if not one.ran.output.rstrip().splitlines()[-1].count(f", {told[1]}, "):
        yield "the last line on the console names another verdict"


def _origin(one: Finished) -> Iterator[str]:
    first, facts = one.own_lines[0], one.words('<dl class="facts">', "</dl>")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    expected = {"user": getpass.getuser(), "machine": platform.node()}
    for name, value in expected.items():
        if (first[name], one.summary["origin"][name]) != (value, value) or value not in facts:
            yield f"{name} is {first[name]}"
    if not first["commit"].startswith(head) or head[:12] not in facts:
        yield f"the commit is {first['commit']}"
    if "--reports" not in first["command"] or " ".join(first["command"].split()) not in facts:
        yield f"the command is {first['command']}"


def _counts(one: Finished) -> Iterator[str]:
    """How many changes the page says were made and undone."""
    lede = one.words('<p class="lede">', "</p>")
    known = [change for change in one.changes if change.undo or change.result in ("done", "failed")]
    made = [change for change in known if change.stands or change.undone]
    undone = sum(change.undone for change in made)
    if one.summary["mode"] in ("plan", "recover") or one.of("planned"):
        return
    said = re.search(r"([\d,]+) changes? (?:was|were) made(?:, (\d+) undone)?[.;]", lede)
    if (int(said[1]) if said else 0, int(said[2] or 0) if said else 0) != (len(made), undone):
        yield f"{len(made)} made and {undone} undone, but the page says: {lede}"
    if not said and one.of("end")[-1]["exit"] != 4 and "No change was made" not in lede:
        yield f"no change was made, but the page says: {lede}"


def _changes(one: Finished) -> Iterator[str]:
    for change, told in zip(one.changes, one.summary["changes"], strict=True):
        if (told["result"], told["undo"] or "", told["undone"]) != (change.result, change.undo, change.undone):
            yield f"change {told['id']} is {change.result} {change.undo}"
        if one.after is None or change.intent["kind"] != "create-mirror" or change.result != "done":
            continue
        if (change.intent["target"].split("/")[1] in one.after.forge) is not change.stands:
            yield f"{change.intent['target']} is said to {'stand' if change.stands else 'be undone'}"


def _figures(one: Finished) -> Iterator[str]:
    rolls = {line["moment"]: line["recipes"] for line in one.of("roll")}
    shown = rolls.get("final", rolls.get("baseline", {}))
    lede = one.words('<p class="lede">', "</p>")
    for column in COLUMNS:
        answers = [row[column]["ok"] for row in shown.values()]
        told = one.summary["triggered" if column == "triggerable" else column]
        number = len(told) if isinstance(told, list) else told
        if number != answers.count(True):
            yield f"{column} is {answers.count(True)}, the summary says {number}"
        silent = bool(one.summary["expected"]) and not [answer for answer in answers if answer is not None]
        if silent is not (column in one.summary["not_looked_at"]):
            yield f"{column} was {'not ' * silent}looked at"
        if silent and re.search(rf"\b0 of \d+ (?:\w+(?:, | and ))*{column}", lede):
            yield f"{column} is unknown, and the page counts it: {lede}"


def _rows(one: Finished) -> Mapping[str, Any]:
    """The final answers; empty without a final roll, which says nothing about the end."""
    return next((line["recipes"] for line in reversed(one.of("roll")) if line["moment"] == "final"), {})


def _mirrors(one: Finished) -> Iterator[str]:
    if one.after is None:
        return
    for name, row in _rows(one).items():
        mirror, upstream = one.after.forge.get(name, {}), one.after.upstream.get(name, {})
        wanted = {ref: sha for ref, sha in upstream.items() if ref == "refs/heads/main" or "/tags/" in ref}
        there = bool(wanted) and all(mirror.get(ref) == sha for ref, sha in wanted.items())
        told = row["mirrored"]["ok"]
        if told is not None and told is not there and "behind" not in row["mirrored"]["evidence"]:
            yield f"{name} is said to be {'' if told else 'not '}mirrored"


def _polled(one: Finished) -> Iterator[str]:
    if one.after is None:
        return
    for name, row in _rows(one).items():
        there = any(entry.endswith(f"/{name}") for entry in one.after.served)
        if row["polled"]["ok"] is True and not there:
            yield f"{name} is said to be polled"


def _host(one: Finished) -> Iterator[str]:
    """A switch or an enrollment that is said to be undone has left the host and the poll set as they were."""
    if one.before is None or one.after is None:
        return
    by_kind = {change.intent["kind"]: change for change in one.changes}
    if (
        (switch := by_kind.get("switch"))
        and switch.undone
        and one.after.host["running"] != one.before.host["running"]
    ):
        yield "the switch is said to be undone"
    if (enroll := by_kind.get("enroll")) and enroll.undone and one.after.poll_set != one.before.poll_set:
        yield "the enrollment is said to be undone"


def _outcomes(one: Finished) -> Iterator[str]:
    """ "None needed" is only said where the journal holds no change of that recipe, or of the host."""
    host_kinds = ("switch", "sync-checkout", "restart-bridge")
    for line in one.of("assertion"):
        if not line["what"].startswith("changes to ") or "none needed" not in line["seen"] or line["phase"] == 3:
            continue
        subject = line["what"].removeprefix("changes to ")
        made = [
            change
            for change in one.changes
            if (subject == "the host" and change.intent["kind"] in host_kinds)
            or (
                line["phase"] == 1 and change.intent.get("recipe") == subject and "sync-" in change.intent["kind"]
            )
        ]
        if made:
            yield f"{line['title']}: none needed, but the journal holds {len(made)}"


def _by_hand(one: Finished) -> Iterator[str]:
    for change in one.changes:
        by_hand = change.intent["by_hand"]
        if change.intent["kind"] == "sync-tags":
            missing = [ref for ref in change.intent["after"] if f":{ref}" not in by_hand.split()]
            if missing:
                yield f"the undo by hand of change {change.intent['change']} leaves out {missing}"
        if html.escape(by_hand, quote=True) not in self_escaped(one.page):
            yield f"the undo by hand of change {change.intent['change']} is not shown whole"


def self_escaped(page: str) -> str:
    """The page with the one escape that the standard library spells in another way."""
    return page.replace("&#39;", "&#x27;")


def _to_do(one: Finished) -> Iterator[str]:
    tasks = one.summary["to_do"]
    urgent = [task for task in tasks if task["severity"] != "info"]
    shown = one.words('<section id="todo">', "</section>")
    if one.summary["verdict"] not in GOOD and not urgent:
        yield "nothing is to be done, although the verdict is not good"
    if bool(urgent) is ("Nothing." in shown):
        yield f"the page says {shown[:80]!r}"
    texts = [task["what"] for task in tasks]
    if len(set(texts)) != len(texts):
        yield "one thing is listed twice"
    yield from (f"no remedy for: {task['what']}" for task in urgent if not task["do"])
    failed = [line for line in one.of("assertion") if line["outcome"] == "failed" and line["reason"] != "drift"]
    told = [title for task in tasks for title in task["consequences"]]
    first = sum(task["kind"] == "failed" for task in tasks)
    if first + len(told) != len(failed):
        yield f"{len(failed)} assertions failed, {first + len(told)} are explained"
    causes = [line["cause"] for line in failed if line["cause"]]
    if len({task["what"] for task in tasks if task["kind"] == "failed" and task["what"] in causes}) > len(
        set(causes)
    ):
        yield "one cause is more than one action"
    reached = {line["phase"] for line in one.of("phase") if line["event"] == "end" and not line["failed"]}
    if 2 not in reached and any("Write a suite" in task["do"] for task in tasks):
        yield "a person is sent to write a suite, although the run did not come that far"


def _settled(one: Finished) -> Iterator[str]:
    """A run is said to be settled exactly if its own journal names this run, and each change as its undo ended."""
    assert one.ran.folder is not None
    told = {settled["run"]: settled for settled in one.summary["settled"]}
    found = {}
    for journal in one.ran.folder.parent.glob("*/journal.jsonl"):
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        if any(line.get("settled_by") == one.ran.folder.name for line in lines if line["type"] == "end"):
            found[journal.parent.name] = {
                line["change"]: line["result"] for line in lines if line["type"] == "undo"
            }
    if set(told) != set(found):
        yield f"it settled {sorted(found)}, and says {sorted(told)}"
    for run, undos in found.items():
        for change in told.get(run, {}).get("changes", ()):
            if change["result"] != "kept" and undos.get(change["id"]) != change["result"]:
                yield f"change {change['id']} of {run} is {undos.get(change['id'])}, said to be {change['result']}"
        if run not in one.words('<section id="changes">', "</section>"):
            yield f"the page does not list what was settled of {run}"


def _stopped(one: Finished) -> Iterator[str]:
    if one.summary["verdict"] != "interrupted":
        return
    stands, undone = (sum(getattr(c, name) for c in one.changes) for name in ("stands", "undone"))
    begun = {line["phase"] for line in one.of("phase")}
    left = ", ".join(str(phase) for phase in range(7) if phase not in begun)
    task = next((task["what"] for task in one.summary["to_do"] if task["kind"] == "interrupted"), "")
    expected = [
        f"{stands} change" if stands else "no change stays",
        f"{undone} undone" if undone else "nothing was undone",
        f"not reached: phase {left}" if left else "every phase was begun",
        one.summary["stopped_by"] or "",
    ]
    yield from (f"{words!r} is missing in {task!r}" for words in expected if words not in task)
