"""A run that was broken off, the one after it, and what has to be true of the world then."""

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
# What is run after a crash, and so what the world has to be afterwards: the end state, or the baseline.
BACK_AGAIN = ("--recover", "--undo", "all")
AFTERWARDS: Mapping[str, tuple[str, ...]] = {ONWARD: (), BACK: BACK_AGAIN}


@dataclass(frozen=True)
class Crash:
    """The world before, the run that was killed, the next one, and the world after it."""

    before: WorldState
    killed: Ran
    settled: Ran
    after: WorldState


def settle(parallel_world: ParallelWorld, series: SnapshotSeries, snapshot: Snapshot, way: str) -> list[str]:
    """Put a snapshot back, run what comes afterwards; what is wrong with the world and the record then."""
    reports = parallel_world.folder / f"reports-{snapshot.number}-{way.replace(' ', '-')}"
    restore_snapshot(parallel_world, snapshot, reports)
    known = set((reports / "runs").iterdir())
    try:
        ran = parallel_world.visit(*AFTERWARDS[way], reports=reports)
        seen = Crash(
            series.before, replace(ran, exit=KILLED, folder=known.pop()), ran, parallel_world.world_state()
        )
        finished = snapshot is series.snapshots[-1]
        if way == ONWARD or finished:
            return judged(seen, finished=finished)
        other = content_of(parallel_world) != series.content
        return [
            *not_back(seen),
            *["cc-ci's head holds other files than before"] * other,
            *untrue(seen, snapshot.boundary),
        ]
    finally:
        parallel_world.end()


def judged(seen: Crash, *, finished: bool = False) -> list[str]:
    """Why a crash was not settled; empty when it was. A run that had `finished` left nothing to settle."""
    if seen.killed.exit != KILLED:
        return [f"the run was not killed: exit {seen.killed.exit}"]
    wrong = said_wrong(seen.settled) + ([] if finished else unsettled(seen))
    return wrong + differences_from_end_state(seen.after, RECIPES) + orphans(seen.after)


def not_back(seen: Crash) -> list[str]:
    """How the world differs from the baseline after everything was taken back."""
    wrong = said_wrong(seen.settled) + live_differences(seen.before, seen.after)
    wrong += orphans(seen.after) + unsettled(seen)
    if seen.after.host["checkout"] != seen.before.host["checkout"]:
        wrong.append("the checkout moved")
    return wrong + [
        f"the mirror of {name} is not what it was"
        for name in RECIPES
        if own_refs(seen.after, name) != own_refs(seen.before, name)
    ]


def own_refs(world_state: WorldState, name: str) -> dict[str, str] | None:
    """A mirror's branches and tags, None where there is no mirror. A forge keeps the commits of each pull request
    for ever; that none is left open is judged by `orphans`."""
    refs = world_state.forge.get(name)
    return None if refs is None else {ref: sha for ref, sha in refs.items() if not ref.startswith("refs/pull/")}


def said_wrong(ran: Ran) -> list[str]:
    """An exit code that says that something is wrong, and a traceback of anybody's."""
    wrong = [] if ran.exit == 0 else [f"exit {ran.exit}: {ran.output[-1500:]}"]
    return wrong + [word for word in ("Traceback", "INTERNALERROR") if word in ran.output]


def unsettled(seen: Crash) -> list[str]:
    """The killed run's journal has an end that names who settled it; the chain of its lines was not broken."""
    assert seen.killed.folder is not None
    assert seen.settled.folder is not None
    last = seen.killed.lines[-1]
    if last["type"] == "end" and last.get("settled_by") == seen.settled.folder.name:
        return []
    return [f"the killed run's journal ends with {last['type']}"]


def untrue(seen: Crash, boundary: str) -> list[str]:
    """What the killed run's journal says of changes that were all taken back, where the snapshot shows it to be wrong.

    What the change of that line had done is known: nothing right after its intent, all of it right after its outcome;
    what others did at that moment is not. Of a mirror that was created before in the same run, the creation alone is
    taken back.
    """
    assert seen.killed.folder is not None
    record = read(seen.killed.folder / FILE_NAME)
    changes = {change.id: change for change in changes_of(record)}
    wrong = [
        f"{c.kind} is told as {c.undone}" for c in changes.values() if c.undone not in ("undone", "not-needed")
    ]
    if not (line := LINE.fullmatch(boundary)):
        return wrong
    number, moment = int(line[1]), line[2]
    change = changes[record.lines[number]["change"]]
    created = any(
        c.kind == ChangeKind.CREATE_MIRROR and c.target == change.target and c.id < change.id
        for c in changes.values()
    )
    told = "not-needed" if moment == "intent" else "undone"
    if not created and change.undone != told:
        wrong.append(f"right after its {moment}, {change.kind} is told as {change.undone}")
    return wrong


def orphans(after: WorldState) -> list[str]:
    """Branches and open pull requests of muster's in any repository."""
    branches = [f"{name} {ref}" for name, refs in after.forge.items() for ref in refs if "heads/muster/" in ref]
    return branches + [f"open: {row[2]}" for row in after.discussions["pulls"]
                       if str(row[2]).startswith("muster/") and row[4] == "open"]  # fmt: skip
