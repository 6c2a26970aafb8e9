"""A good night of muster's as values: its surveys and changes, a forge that answers for it, and acts of others in it.

Each act changes the surveys from one moment of the night on. The moments lie between the surveys: before and after the
mirrors are synced, before and after the host is switched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from fixtures.clients import nixos
from fixtures.clients.bridge import ABSENT, BridgeTask
from fixtures.clients.clock_offset import ClockOffset
from fixtures.clients.forge_values import Event, EventKind, File, PullRequest, Repository
from fixtures.clients.git import Refs
from fixtures.config.run_options import UndoScope
from fixtures.errors import Drift, Unreachable
from fixtures.journal.kinds import ChangeKind
from fixtures.journal.lines import FILE_NAME
from fixtures.journal.writer import Journal
from fixtures.rollback.finish import Rollback, undo_run
from fixtures.run.recorder import Recorder
from fixtures.run.surveys import Surveys
from fixtures.survey import CcciState, HostState, Survey

ORG, CCCI, BOT = "recipe-maintainers", "recipe-maintainers/cc-ci", "autonomic-bot"
STARTED = datetime(2026, 6, 2, 21, 0, tzinfo=UTC)
RECIPES = ("ghost", "keycloak", "mumble")
OLD_SYSTEM, NEW_SYSTEM, OTHER_SYSTEM = "/nix/store/old", "/nix/store/new", "/nix/store/other"
START, SYNCED, DEPLOY, SWITCHED, END = range(5)
MAIN = {"ghost": "a" * 40, "keycloak": "b" * 40, "mumble": "c" * 40}
BEHIND, THEIRS = "d" * 40, "e" * 40

Edit = Callable[[Survey], Survey]


@dataclass(frozen=True)
class Act:
    """What somebody does to each survey from a moment on, and a word of the finding that must say so."""

    name: str
    edit: Edit
    says: str
    moments: tuple[int, ...] = (START, SYNCED, SWITCHED, END)
    closed: str = ""


def _host(survey: Survey, **fields: Any) -> Survey:
    assert survey.host is not None
    return replace(survey, host=replace(survey.host, **fields))


def _refs(recipe: str, change: Callable[[Refs], Refs]) -> Edit:
    def edit(survey: Survey) -> Survey:
        if recipe not in survey.mirrors:
            return survey
        return replace(survey, mirrors={**survey.mirrors, recipe: change(survey.mirrors[recipe])})

    return edit


def _settings(recipe: str, **fields: Any) -> Edit:
    def edit(survey: Survey) -> Survey:
        if recipe not in survey.repositories:
            return survey
        changed = msgspec.structs.replace(survey.repositories[recipe], **fields)
        return replace(survey, repositories={**survey.repositories, recipe: changed})

    return edit


def _without(recipe: str, *, renamed: bool) -> Edit:
    def edit(survey: Survey) -> Survey:
        repositories = {name: one for name, one in survey.repositories.items() if name != recipe}
        mirrors = {name: refs for name, refs in survey.mirrors.items() if name != recipe}
        problem = {f"mirror {recipe}": Drift(f"{ORG}/{recipe} was renamed.")} if renamed else {}
        problems = {**survey.problems, **problem}
        return replace(survey, repositories=repositories, mirrors=mirrors, problems=problems)

    return edit


def _close(name: str) -> Edit:
    return lambda survey: replace(survey, open_pulls=tuple(p for p in survey.open_pulls if p.name != name))


def _open(survey: Survey) -> Survey:
    return replace(survey, open_pulls=(*survey.open_pulls, pull(f"{ORG}/keycloak", 7, author="alice")))


def _ccci(**fields: Any) -> Edit:
    def edit(survey: Survey) -> Survey:
        assert survey.ccci is not None
        return replace(survey, ccci=replace(survey.ccci, **fields))

    return edit


def _checkout(**fields: Any) -> Edit:
    def edit(survey: Survey) -> Survey:
        assert survey.host is not None
        return _host(survey, checkout=replace(survey.host.checkout, **fields))

    return edit


def _activate(survey: Survey) -> Survey:
    other = nixos.System(OTHER_SYSTEM, nixos.Generation(40, OTHER_SYSTEM))
    return _host(survey, system=other, bridge=ABSENT, incomplete_services={"ccci-bridge_app": "0/1"})


BEFORE_SWITCH = (START, SYNCED)
AFTER_SWITCH = (SWITCHED, END)
ACTS = (
    Act("close", _close(f"{ORG}/ghost#1"), "ghost#1 was closed by alice", closed=f"{ORG}/ghost#1"),
    Act(
        "close on synced",
        _close(f"{ORG}/keycloak#2"),
        "keycloak#2 was closed by alice",
        closed=f"{ORG}/keycloak#2",
    ),
    Act("open", _open, "keycloak#7 (A title) was opened by alice"),
    Act("push to pull", _refs("ghost", lambda r: replace(r, pulls={1: THEIRS})), "ghost#1 was pushed to"),
    Act(
        "push",
        _refs("ghost", lambda r: replace(r, branches={"main": THEIRS})),
        "main of recipe-maintainers/ghost",
    ),
    Act(
        "push over sync",
        _refs("keycloak", lambda r: replace(r, branches={"main": THEIRS})),
        "main of recipe-maintainers/keycloak was moved",
        (SYNCED, *AFTER_SWITCH),
    ),
    Act(
        "set back",
        _refs("ghost", lambda r: replace(r, branches={"main": BEHIND})),
        "main of recipe-maintainers/ghost",
    ),
    Act("branch", _refs("ghost", lambda r: replace(r, branches={**r.branches, "x": THEIRS})), "branch x of"),
    Act("tag", _refs("ghost", lambda r: replace(r, tag_objects={"x": THEIRS}, tags={"x": THEIRS})), "tag x of"),
    Act("default branch", _settings("ghost", default_branch="next"), "default branch"),
    Act("archive", _settings("keycloak", archived=True), "archived"),
    Act("publish", _settings("ghost", private=False), "made public"),
    Act("delete", _without("ghost", renamed=False), "ghost is gone"),
    Act("rename", _without("keycloak", renamed=True), "renamed", (SYNCED, *AFTER_SWITCH)),
    Act("poll file", _ccci(poll_file=File("bridge.nix", b"", "theirs")), "bridge.nix was changed", AFTER_SWITCH),
    Act("edit", _checkout(dirty=(" M flake.nix",)), "flake.nix"),
    Act("commit on host", _checkout(head=THEIRS), "its HEAD is", AFTER_SWITCH),
    Act("branch on host", _checkout(branch="hotfix"), "on branch hotfix"),
    Act("activate", _activate, "another system was activated", AFTER_SWITCH),
    Act("alert", lambda s: _host(s, alerts=frozenset({"disk"})), "new alert was written: disk", BEFORE_SWITCH),
    Act("unit", lambda s: _host(s, failed_units=frozenset({"x.service"})), "x.service failed", BEFORE_SWITCH),
    Act(
        "scale down", lambda s: _host(s, incomplete_services={"backups_app": "0/1"}), "backups_app", BEFORE_SWITCH
    ),
)


def break_bridge(survey: Survey) -> Survey:
    """The harm of a switch: its new bridge does not come up."""
    return _host(survey, bridge=ABSENT)


def pull(repository: str, number: int, *, author: str, state: str = "open") -> PullRequest:
    return PullRequest(repository, number, "A title", state, author)


def first_survey() -> Survey:
    """The state before the first write: keycloak is behind upstream, mumble has no mirror."""
    mirrors = {"ghost": Refs("main", {"main": MAIN["ghost"]}, pulls={1: BEHIND}),
               "keycloak": Refs("main", {"main": BEHIND}, pulls={2: BEHIND})}  # fmt: skip
    identity = nixos.Identity("id", "cc-ci", "/dev/sda1")
    host = HostState(
        identity=identity,
        clock_skew_s=0.0,
        system=nixos.System(OLD_SYSTEM, nixos.Generation(42, OLD_SYSTEM)),
        failed_units=frozenset(),
        own_units=frozenset(),
        alerts=frozenset(),
        checkout=nixos.Checkout("0" * 40, "main", (), (), "origin"),
        checkout_poll_file=b"",
        poll_file_changed=None,
        bridge=BridgeTask("t1", "running", "", f"{CCCI},{ORG}/ghost", ()),
        incomplete_services={},
    )
    return Survey(
        taken=STARTED,
        forge_version="1.24",
        account=BOT,
        drone_account=BOT,
        repositories={name: Repository(f"{ORG}/{name}", False, "main", True, False) for name in mirrors},
        mirrors=mirrors,
        upstreams={name: Refs("main", {"main": head}) for name, head in MAIN.items()},
        open_pulls=(pull(f"{ORG}/ghost", 1, author="alice"), pull(f"{ORG}/keycloak", 2, author="alice")),
        ccci=CcciState("1" * 40, File("bridge.nix", b"", "before"), {}, (), None, {}),
        host=host,
        builds=(),
    )


def surveys_of_night() -> list[tuple[int, Survey]]:
    """A good night's surveys, each with the number of changes begun before it."""
    before = first_survey()
    synced = replace(
        before,
        repositories={**before.repositories, "mumble": Repository(f"{ORG}/mumble", False, "main", True, False)},
        mirrors={
            **before.mirrors,
            "keycloak": replace(before.mirrors["keycloak"], branches={"main": MAIN["keycloak"]}),
            "mumble": Refs("main", {"main": MAIN["mumble"]}),
        },
        ccci=CcciState("2" * 40, File("bridge.nix", b"", "after"), {}, (), None, {}),
    )
    assert before.host is not None
    everything = ",".join([CCCI, *(f"{ORG}/{name}" for name in RECIPES)])
    switched = _host(
        synced,
        system=nixos.System(NEW_SYSTEM, nixos.Generation(43, NEW_SYSTEM)),
        checkout=replace(before.host.checkout, head="2" * 40),
        bridge=BridgeTask("t2", "running", "", everything, ()),
    )
    return [(0, before), (4, synced), (5, synced), (6, switched), (6, switched)]


def _write_changes(journal: Journal) -> None:
    """The changes of that night: 1 to 4 before the second survey, 5 before the third, 6 before the fourth."""

    def write(kind: ChangeKind, recipe: str | None = None, **undo: Any) -> None:
        with journal.change(
            kind, str(kind), before=None, after=None, undo=undo, by_hand="", recipe=recipe
        ) as change:
            change.done(after={"path": undo["built"]} if "built" in undo else None)

    write(ChangeKind.SYNC_MAIN, "keycloak", refs=[["refs/heads/main", BEHIND, MAIN["keycloak"]]])
    write(ChangeKind.CREATE_MIRROR, "mumble", mark="")
    write(ChangeKind.SYNC_MAIN, "mumble", refs=[["refs/heads/main", "0" * 40, MAIN["mumble"]]])
    write(ChangeKind.ENROLL, left="after", commit="2" * 40)
    write(ChangeKind.SYNC_CHECKOUT, before="0" * 40, after="2" * 40)
    write(ChangeKind.SWITCH, built=NEW_SYSTEM, running=OLD_SYSTEM, path=OLD_SYSTEM)


@dataclass
class FakeForge:
    """Answers the questions that the judgement asks about single objects; it has no method that writes."""

    closed: frozenset[str]
    ahead: timedelta = timedelta()
    url: str = "http://forge"
    clock: ClockOffset = field(default_factory=lambda: ClockOffset(grain_s=1.0))

    def __post_init__(self) -> None:
        self.clock.note(STARTED + self.ahead, sent=STARTED, received=STARTED)

    def pull(self, full_name: str, number: int) -> PullRequest:
        state = "closed" if f"{full_name}#{number}" in self.closed else "open"
        return pull(full_name, number, author="alice", state=state)

    def events(self, full_name: str, number: int, *, since: datetime) -> list[Event]:
        closed = Event(EventKind.CLOSED, "alice", STARTED + timedelta(minutes=14, seconds=30) + self.ahead)
        return [closed] if f"{full_name}#{number}" in self.closed and closed.at >= since else []

    def commits(self, full_name: str, ref: str, *, path: str = "") -> list[Any]:
        return []


class NoWorld:
    """A world to write to that is away: each undo fails, and is recorded as refused."""

    def __init__(self, forge: FakeForge) -> None:
        self.forge = forge

    def __getattr__(self, name: str) -> Any:
        raise Unreachable(f"{name}: this world is away.")


class RecordedSurveys(Surveys):
    """Surveys whose next looks show what is `to_come`, and then the same again."""

    to_come: list[Survey]

    def look_again(self, world: Any = None) -> Survey:
        return self._advance(lambda: self.to_come.pop(0) if self.to_come else self.now)


@dataclass(frozen=True)
class Judged:
    """How a night was judged at its end: what was done about it, which changes were undone, and what was told."""

    rollback: Rollback
    undone: tuple[str, ...]
    told: tuple[str, ...]
    overtaken: str


def judge(
    folder: Path,
    acts: Iterable[tuple[int, Act]],
    *,
    harm: Edit | None = None,
    lie: Edit | None = None,
    closed: Iterable[str] | None = None,
    ahead: timedelta = timedelta(),
) -> Judged:
    """Judge that night with these acts in it, each from its moment on, and the switch's `harm`, if any.

    A `lie` is only in the first look at the end. `closed` are the pull requests whose own pages say so, by default
    those that the acts close. `ahead` is how much the forge's clock is ahead. No write is possible, so an undo that is
    begun is recorded as refused.
    """
    folder.mkdir(exist_ok=True)
    (folder / FILE_NAME).unlink(missing_ok=True)
    chosen = list(acts)
    seen = []
    for moment, (count, survey) in enumerate(surveys_of_night()):
        if harm and moment >= SWITCHED:
            survey = harm(survey)
        for begins, act in chosen:
            # An act at a moment is seen by the next survey; the last one sees what happens at the end.
            if begins < moment or begins == moment == END:
                survey = act.edit(survey)
        seen.append((count, survey))
    journal = Journal(folder / FILE_NAME)
    _write_changes(journal)
    try:
        pages = frozenset(closed if closed is not None else (act.closed for _, act in chosen if act.closed))
        run = _run(journal, seen, FakeForge(pages, ahead))
        last = seen[-1][1]
        run.surveys.to_come = [lie(last), last] if lie else []
        away: Any = NoWorld(run.context.world.forge)
        rollback = undo_run(run, away, interrupted=False)
    finally:
        journal.close()
    undone = tuple(change.kind for change in run.record.journal.changes() if change.undone)
    told = tuple(finding.what for finding in run.record.findings)
    return Judged(rollback, undone, told, run.record.overtaken)


def _run(journal: Journal, seen: list[tuple[int, Survey]], forge: FakeForge) -> Any:
    world: Any = SimpleNamespace(forge=forge, mirror=lambda name: f"{ORG}/{name}", ccci=CCCI, mirrors=None)
    site = SimpleNamespace(
        forge=SimpleNamespace(bot=BOT, url=forge.url),
        ccci=SimpleNamespace(repository=CCCI),
        host=SimpleNamespace(address="host", source="/root/cc-ci", alerts_dir="/alerts"),
        bridge=SimpleNamespace(poll_interval_s=0.0),
        limits=SimpleNamespace(bridge_stable_s=30.0),
    )
    context: Any = SimpleNamespace(
        world=world,
        site=site,
        roster=SimpleNamespace(names=RECIPES),
        started=STARTED,
        options=SimpleNamespace(undo=UndoScope.LIVE),
        waiter=SimpleNamespace(stop=threading.Event()),
        cost=SimpleNamespace(of=lambda _: nullcontext()),
        news=nullcontext,
        demand_lock=lambda: None,
    )
    surveys = RecordedSurveys(
        world, context.roster, baseline=seen[0][1], now=seen[-1][1], count_changes=journal.count_changes
    )
    surveys.earlier = seen[:-1]
    surveys._changes_seen = seen[-1][0]
    return SimpleNamespace(context=context, record=Recorder(journal), surveys=surveys)
