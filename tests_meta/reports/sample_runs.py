"""Runs as they could have been, one for every verdict, written through the real journal by a clock of their own.

The night is that of 2026-06-02: nineteen recipes, three mirrors missing, nine not enrolled, one without suite.
``python -m tests_meta.reports.sample_runs FOLDER`` writes all of them there and renders them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from fixtures.errors import Unknown
from fixtures.journal.finding_kinds import FindingKind
from fixtures.journal.writer import Journal
from tests_meta.reports.sample_night import (
    DRONE,
    FORGE,
    MIDNIGHT,
    MISSING,
    NEW,
    OLD,
    ORG,
    PROVEN,
    ROSTER,
    Clock,
    Night,
    header,
    roll,
    sha,
)
from tests_meta.reports.sample_phases import (
    deploy,
    enrollment,
    enrollment_diff,
    leftovers,
    mirrors,
    preflight,
    resume,
    suite,
    triggers,
)

STATES = (
    "converged",
    "unchanged",
    "planned",
    "drift",
    "failed",
    "rolled-back",
    "rollback-failed",
    "withheld",
    "recovered",
    "interrupted",
    "unreachable",
    "partial",
)

MODES = {"planned": "plan", "unchanged": "health", "drift": "health", "recovered": "recover"}
BEFORE = {"mirrored": MISSING, "covered": ("hedgedoc",), "polled": NEW}


def write(
    root: Path,
    state: str,
    *,
    start: datetime = MIDNIGHT,
    rehearsal: bool = False,
    recipes: Sequence[str] = ROSTER,
    journal_type: type[Journal] = Journal,
) -> Path:
    """Write the journal of a run that came to `state`; returns its folder under ``root/runs``."""
    mode = MODES.get(state, "apply")
    site = "rehearsal" if rehearsal else "autonomic"
    run = f"{start:%Y%m%dT%H%M%SZ}-{site}-{mode}"
    folder = root / "runs" / run
    folder.mkdir(parents=True)
    clock = Clock(start)
    with clock.installed():
        journal = journal_type(folder / "journal.jsonl")
        night = Night(journal, clock, recipes, mode)
        header(night, run, rehearsal=rehearsal, planned_tests=7 + 4 * len(recipes) + 5)
        with suppress(KeyboardInterrupt):
            _STORIES[state](night)
        journal.close()
    return folder


def _converged(night: Night) -> None:
    night.journal.write("roll", moment="baseline", recipes=roll(night.recipes, wanting=BEFORE))
    for step in (preflight, mirrors, suite, enrollment, deploy, triggers, resume):
        step(night)
    leftovers(night)
    night.finding(
        "immich-red",
        FindingKind.NEW_RED,
        "warning",
        "immich is red at restore: the ci_marker table is missing.",
        where=f"{DRONE}/{ORG}/cc-ci/121",
        do="Fix the recipe's backup, or enter it as known red in `fixtures/config/roster.toml` with a date.",
        recipe="immich",
    )
    night.journal.write("roll", moment="final", recipes=roll(night.recipes, wanting={}, proven=PROVEN))
    night.end("converged")


def _unchanged(night: Night) -> None:
    full = roll(night.recipes, wanting={}, proven=PROVEN)
    night.journal.write("roll", moment="baseline", recipes=full)
    preflight(night, abra=False)
    for step in (mirrors, suite, enrollment, deploy):
        step(night, acts=False)
    resume(night)
    leftovers(night)
    night.journal.write("roll", moment="final", recipes=full)
    night.end("unchanged")


def _planned(night: Night) -> None:
    night.journal.write("roll", moment="baseline", recipes=roll(night.recipes, wanting=BEFORE))
    preflight(night)
    step = partial(night.journal.write, "planned", recipe=None, certainty="change")
    for recipe in MISSING:
        detail = f"create it private and push upstream's main {sha(f'main {recipe}')[:10]} and its tags"
        step(phase=1, kind="create", target=f"{ORG}/{recipe}", detail=detail, recipe=recipe)
    detail = "propose 10 files of tests/hedgedoc/ as a pull request, prove and merge it"
    step(phase=2, kind="propose-suite", target=f"{ORG}/cc-ci", detail=detail, recipe="hedgedoc")
    polled, added = [f"{ORG}/{name}" for name in ("cc-ci", *OLD)], [f"{ORG}/{name}" for name in NEW]
    night.journal.write("diff", target="nix/modules/bridge.nix", text=enrollment_diff(polled, [*polled, *added]))
    detail = f"append {', '.join(added)}"
    step(phase=3, kind="enroll", target=f"{ORG}/cc-ci: nix/modules/bridge.nix", detail=detail)
    detail = "build and switch from generation 57; a new bridge task polls 20 repositories"
    step(phase=4, kind="switch", target="the host", detail=detail, certainty="unknown until applied")
    leftovers(night)
    night.end("planned")


def _drift(night: Night) -> None:
    night.journal.write(
        "roll",
        moment="baseline",
        recipes=roll(night.recipes, wanting={"mirrored": ("n8n",), "polled": ("mumble",)}, proven=PROVEN),
    )
    preflight(night, abra=False)
    mirrors(night, acts=False, failing={"n8n": f"main at {sha('apart')}, which is apart from upstream"})
    suite(night, acts=False)
    enrollment(night, acts=False)
    leftovers(night)
    night.finding(
        "n8n-apart",
        FindingKind.MIRROR,
        "action",
        "The mirror of n8n is apart from upstream: somebody pushed to its main.",
        where=f"{FORGE}/{ORG}/n8n/commits/branch/main",
        do="Look at the two commits; to overwrite them: `pytest phases/ --site site.toml --force-sync n8n`.",
        recipe="n8n",
    )
    night.journal.write(
        "roll",
        moment="final",
        recipes=roll(night.recipes, wanting={"mirrored": ("n8n",), "polled": ("mumble",)}, proven=PROVEN),
    )
    night.end("drift")


def _failed(night: Night) -> None:
    night.journal.write("roll", moment="baseline", recipes=roll(night.recipes, wanting=BEFORE))
    preflight(night)
    mirrors(night, failing={"mailu": "an empty repository", "mumble": "404 for the branch main"})
    suite(night, acts=False)
    enrollment(night)
    night.finding(
        "mailu-empty",
        FindingKind.MIRROR,
        "action",
        "The mirror of mailu stayed empty after the push.",
        where=f"{FORGE}/{ORG}/mailu",
        do="See whether the forge's disk is full, then run again: it continues with mailu alone.",
        recipe="mailu",
    )
    leftovers(night)
    night.journal.write(
        "roll",
        moment="final",
        recipes=roll(night.recipes, wanting={"mirrored": ("mailu", "mumble"), "polled": NEW}),
    )
    night.end("failed")


def _regressed(night: Night, *, undo_works: bool) -> None:
    night.journal.write("roll", moment="baseline", recipes=roll(night.recipes, wanting=BEFORE))
    for step in (preflight, mirrors, suite, enrollment):
        step(night)
    deploy(night, regression=True)
    triggers(night, skipped="waits for phase 4: 1 of 21 not passed; first test_bridge_runs")
    night.journal.write("regression", what="the bridge ran and polled 10 recipes; now no task runs", recipe=None)
    for change in reversed(night.journal.changes()):
        if change.kind in ("switch", "enroll", "arm-revert"):
            night.clock.passes(24.0 if change.kind == "switch" else 2.0)
            failed = change.kind == "switch" and not undo_works
            why = (
                "the host refused: switch-to-configuration exited 4, failed unit deploy-bridge.service"
                if failed
                else ""
            )
            night.journal.write("undo", change=change.id, result="failed" if failed else "undone", why=why)
    if undo_works:
        night.finding(
            "bridge-rejected",
            FindingKind.DEPLOY_FAILED,
            "warning",
            "The new bridge task was rejected: no suitable node. The host was put back to generation 57.",
            where="host ci.example.org",
            do="Look at `docker service ps ccci-bridge_app`, fix the placement, and run again.",
        )
        night.journal.write("roll", moment="final", recipes=roll(night.recipes, wanting={"polled": NEW}))
    else:
        night.finding(
            "host-broken",
            FindingKind.DEPLOY_FAILED,
            "action",
            "The bridge does not run, and the host could not be put back.",
            where="host ci.example.org, console",
            do="Open the console and boot generation 57; then `systemctl --failed`.",
        )
        night.journal.write("roll", moment="final", recipes=roll(night.recipes, wanting={"polled": ROSTER}))
    night.end("rolled-back" if undo_works else "rollback-failed")


def _withheld(night: Night) -> None:
    night.journal.write("roll", moment="baseline", recipes=roll(night.recipes, wanting=BEFORE))
    for step in (preflight, mirrors, suite, enrollment):
        step(night)
    night.finding(
        "checkout-dirty",
        FindingKind.DEPLOY_WITHHELD,
        "action",
        "The checkout `/root/cc-ci` holds local changes, so the deploy was withheld.",
        where="host ci.example.org:/root/cc-ci",
        do="See `git -C /root/cc-ci status`, commit or drop them, and run again: it continues with the deploy.",
    )
    leftovers(night)
    night.journal.write("roll", moment="final", recipes=roll(night.recipes, wanting={"polled": NEW}))
    night.end("withheld")


def _interrupted(night: Night) -> None:
    night.journal.write("roll", moment="baseline", recipes=roll(night.recipes, wanting=BEFORE))
    preflight(night)
    mirrors(night)
    suite(night)

    def cut() -> None:
        with (
            suppress(Unknown),
            night.journal.change(
                "enroll",
                "nix/modules/bridge.nix",
                before="10 recipes",
                after="19 recipes",
                undo={},
                by_hand=f"git revert {sha('enroll')}",
            ),
        ):
            night.clock.passes(1.5)
            raise KeyboardInterrupt

    night.phase(3, cut)


def _recovered(night: Night) -> None:
    half = roll(night.recipes, wanting={**BEFORE, "mirrored": ("mailu", "mumble")}, proven=PROVEN)
    night.journal.write("roll", moment="baseline", recipes=half)
    changes = [
        ("create-mirror", f"{ORG}/lasuite-drive", "kept", "it is complete"),
        ("enroll", "nix/modules/bridge.nix", "undone", "it was not complete"),
        ("comment", f"{ORG}/cc-ci#31", "not-needed", "it was gone already"),
    ]
    night.journal.write(
        "settled",
        run="20260601T001300Z-autonomic-apply",
        why="it was killed",
        changes=[
            {"change": number, "kind": kind, "target": target, "result": result, "why": why}
            for number, (kind, target, result, why) in enumerate(changes, 1)
        ],
    )
    night.clock.passes(4.0)
    night.journal.write("roll", moment="final", recipes=half)
    night.end("recovered")


def _stopped(night: Night) -> None:
    """SIGTERM in the switch: the mirrors stay, the enrollment and the switch are undone."""
    night.journal.write("roll", moment="baseline", recipes=roll(night.recipes, wanting=BEFORE, proven=PROVEN))
    for step in (preflight, mirrors, suite, enrollment, deploy):
        step(night)
    for change in reversed(night.journal.changes()):
        if change.kind in ("switch", "enroll", "arm-revert", "comment"):
            night.journal.write("undo", change=change.id, result="undone", why="the run did not finish")
    night.journal.write(
        "roll", moment="final", recipes=roll(night.recipes, wanting={"polled": NEW}, proven=PROVEN)
    )
    night.end("interrupted", stopped_by="SIGTERM")


def _unreachable(night: Night) -> None:
    """The host is dead: every test that reads it fails for one reason, and nothing after phase 0 runs."""
    dead = "host ci.example.org: expected an answer, could not connect (No route to host)."
    do = "Check that the machine runs and that this one can reach it."
    unread = roll(night.recipes, wanting={}, proven=PROVEN)
    for row in unread.values():
        row["polled"] = {"ok": None, "evidence": {"bridge": "not read"}}
    night.journal.write("roll", moment="baseline", recipes=unread)

    def body() -> None:
        for number in range(25):
            night.assertion(
                0,
                f"host_fact_{number}",
                f"fact {number} of the host is as expected",
                outcome="failed",
                expected="no problem",
                seen=dead,
                message=f"{dead} {do}",
                cause=dead,
                do=do,
            )

    night.phase(0, body)
    night.journal.write("roll", moment="final", recipes=unread)
    night.end("unreachable")


def _partial(night: Night) -> None:
    """``pytest phases/test_1_mirrors.py`` on a converged system: two of seven phases, and nothing wrong in them."""
    full = roll(night.recipes, wanting={}, proven=PROVEN)
    night.journal.write("roll", moment="baseline", recipes=full)
    preflight(night, abra=False)
    mirrors(night, acts=False)
    night.journal.write("roll", moment="final", recipes=full)
    left_out = [f"phases/test_2_suites.py::test_covered[{name}]" for name in night.recipes[:3]]
    night.journal.write("scope", complete=[0, 1], left_out=5 * len(night.recipes), first=left_out)
    night.end("partial")


_STORIES: Mapping[str, Callable[[Night], None]] = {
    "converged": _converged,
    "unchanged": _unchanged,
    "planned": _planned,
    "drift": _drift,
    "failed": _failed,
    "rolled-back": lambda night: _regressed(night, undo_works=True),
    "rollback-failed": lambda night: _regressed(night, undo_works=False),
    "withheld": _withheld,
    "recovered": _recovered,
    "interrupted": _interrupted,
    "stopped": _stopped,
    "unreachable": _unreachable,
    "partial": _partial,
}


def write_all(root: Path) -> dict[str, Path]:
    """Every state once, a night apart; the converged one twice, for real and as a rehearsal."""
    written = {
        state: write(root, state, start=MIDNIGHT + timedelta(days=day)) for day, state in enumerate(STATES)
    }
    return {
        **written,
        "rehearsal": write(root, "converged", start=MIDNIGHT - timedelta(days=1), rehearsal=True),
    }


if __name__ == "__main__":
    from reports import render

    for name, folder in write_all(Path(sys.argv[1])).items():
        print(name, render(folder).problems or "")
