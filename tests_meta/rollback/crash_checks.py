"""Checks of the world and the record after a killed run and the run that follows it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fixtures.journal.kinds import ChangeKind
from fixtures.journal.lines import FILE_NAME
from fixtures.journal.reader import changes_of, read
from tests_meta.muster_runs import Ran
from tests_meta.parallel_worlds import ParallelWorld, WorldState, differences_from_end_state, live_differences
from tests_meta.rollback.snapshots import Snapshot, SnapshotSeries, content_of, restore_snapshot

KILLED = -9
ROSTER = """\
recipes = [
  { name = "n8n", enroll = false },
  { name = "hedgedoc", enroll = false },
  { name = "immich", enroll = true, known_red = { reason = "restore", until = 9999-12-31 } },
  { name = "mumble", enroll = true },
]
canaries = ["immich"]
deferred = []
"""
RECIPES = ("n8n", "hedgedoc", "immich", "mumble")
ONWARD, BACK = "gone on", "taken back"
LINE = re.compile(r"after line (\d+) (intent|outcome)")
# The arguments of the run after a crash; the world must then be in the end state or the baseline.
UNDO_ALL = ("--recover", "--undo", "all")
AFTERWARDS: Mapping[str, tuple[str, ...]] = {ONWARD: (), BACK: UNDO_ALL}


@dataclass(frozen=True)
class Crash:
    """A killed run and the run that recovered it, with the state of the world before and after."""

    before: WorldState
    killed: Ran
    recovery: Ran
    after: WorldState


def recover_from(
    parallel_world: ParallelWorld, series: SnapshotSeries, snapshot: Snapshot, way: str
) -> list[str]:
    """Restore a snapshot, run muster, and return the defects of the world and the record."""
    reports = parallel_world.folder / f"reports-{snapshot.number}-{way.replace(' ', '-')}"
    restore_snapshot(parallel_world, snapshot, reports)
    known = set((reports / "runs").iterdir())
    try:
        ran = parallel_world.visit(*AFTERWARDS[way], reports=reports)
        crash = Crash(
            series.before, replace(ran, exit=KILLED, folder=known.pop()), ran, parallel_world.world_state()
        )
        finished = snapshot is series.snapshots[-1]
        if way == ONWARD or finished:
            return recovery_defects(crash, finished=finished)
        other = content_of(parallel_world) != series.content
        return [
            *baseline_differences(crash),
            *["the files at cc-ci's head differ from the baseline"] * other,
            *false_undo_records(crash, snapshot.boundary),
        ]
    finally:
        parallel_world.end()


def recovery_defects(crash: Crash, *, finished: bool = False) -> list[str]:
    """The defects after a recovery to the end state. A run that had `finished` needs no recovery."""
    if crash.killed.exit != KILLED:
        return [f"the run was not killed: exit {crash.killed.exit}"]
    wrong = exit_defects(crash.recovery) + ([] if finished else unfinished_journal(crash))
    return wrong + differences_from_end_state(crash.after, RECIPES) + orphans(crash.after)


def baseline_differences(crash: Crash) -> list[str]:
    """The differences from the baseline after all changes were undone."""
    wrong = exit_defects(crash.recovery) + live_differences(crash.before, crash.after)
    wrong += orphans(crash.after) + unfinished_journal(crash)
    if crash.after.host["checkout"] != crash.before.host["checkout"]:
        wrong.append("the checkout moved")
    return wrong + [
        f"the mirror of {name} differs from the baseline"
        for name in RECIPES
        if own_refs(crash.after, name) != own_refs(crash.before, name)
    ]


def own_refs(world_state: WorldState, name: str) -> dict[str, str] | None:
    """A mirror's branches and tags, None where there is no mirror. A forge keeps the commits of each pull request
    for ever; `orphans` checks that no pull request is open."""
    refs = world_state.forge.get(name)
    return None if refs is None else {ref: sha for ref, sha in refs.items() if not ref.startswith("refs/pull/")}


def exit_defects(ran: Ran) -> list[str]:
    """A nonzero exit code and any traceback."""
    wrong = [] if ran.exit == 0 else [f"exit {ran.exit}: {ran.output[-1500:]}"]
    return wrong + [word for word in ("Traceback", "INTERNALERROR") if word in ran.output]


def unfinished_journal(crash: Crash) -> list[str]:
    """The killed run's journal must end with a line that names the run that recovered it."""
    assert crash.killed.folder is not None
    assert crash.recovery.folder is not None
    last = crash.killed.lines[-1]
    if last["type"] == "end" and last.get("settled_by") == crash.recovery.folder.name:
        return []
    return [f"the killed run's journal ends with {last['type']}"]


def false_undo_records(crash: Crash, boundary: str) -> list[str]:
    """Undo records in the killed run's journal that contradict the snapshot, after all changes were undone.

    The state of the snapshot's own change is known: not made right after its intent, complete right after its outcome.
    The state of concurrent changes is unknown. For a mirror created in the same run, only the creation is undone.
    """
    assert crash.killed.folder is not None
    record = read(crash.killed.folder / FILE_NAME)
    changes = {change.id: change for change in changes_of(record)}
    wrong = [
        f"{c.kind} is recorded as {c.undone}"
        for c in changes.values()
        if c.undone not in ("undone", "not-needed")
    ]
    if not (line := LINE.fullmatch(boundary)):
        return wrong
    number, moment = int(line[1]), line[2]
    change = changes[record.lines[number]["change"]]
    created = any(
        c.kind == ChangeKind.CREATE_MIRROR and c.target == change.target and c.id < change.id
        for c in changes.values()
    )
    expected = "not-needed" if moment == "intent" else "undone"
    if not created and change.undone != expected:
        wrong.append(f"right after its {moment}, {change.kind} is recorded as {change.undone}")
    return wrong


def orphans(after: WorldState) -> list[str]:
    """Branches and open pull requests created by muster that remain in any repository."""
    branches = [f"{name} {ref}" for name, refs in after.forge.items() for ref in refs if "heads/muster/" in ref]
    return branches + [f"open: {row[2]}" for row in after.discussions["pulls"]
                       if str(row[2]).startswith("muster/") and row[4] == "open"]  # fmt: skip
