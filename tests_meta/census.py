"""A census of what belongs to other people in a world: their commits, tags, pull requests, issues and comments.

It is read from git and the forge's database, without muster's clients. A test takes it before and after a run; nothing
of it may be missing afterwards, except what people removed themselves during the run.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fixtures.rehearsal.people.crew import ACTS_FILE, Kept, Kind
from fixtures.rehearsal.settings import WorldSettings
from tests_meta.world_view import WorldView

DISCUSSIONS = """
    SELECT repos.lower_name, issues.number, issues.closed, accounts.name FROM issues
    JOIN repos ON repos.id = issues.repo_id JOIN accounts ON accounts.id = issues.author_id"""
COMMENTS = """
    SELECT comments.id, comments.body FROM comments JOIN accounts ON accounts.id = comments.author_id
    WHERE comments.kind = 'comment' AND accounts.name != ?"""


@dataclass(frozen=True)
class Census:
    """What others have: commits and tags by repository, discussions (pull requests and issues), comments by id.

    `states` says of every discussion, muster's included, whether it is closed.
    """

    commits: dict[str, frozenset[str]]
    tags: dict[str, frozenset[str]]
    discussions: frozenset[str]
    comments: dict[str, str]
    states: dict[str, bool]

    def missing_in(self, after: Census) -> list[str]:
        """What of this census is not in `after`, one line each."""
        missing = [
            f"{repository}: commit {commit[:10]}"
            for repository, commits in self.commits.items()
            for commit in sorted(commits - after.commits.get(repository, frozenset()))
        ]
        missing += [
            f"{repository}: tag {tag}"
            for repository, tags in self.tags.items()
            for tag in sorted(tags - after.tags.get(repository, frozenset()))
        ]
        missing += [f"discussion {name}" for name in sorted(self.discussions - after.discussions)]
        return missing + [
            f"comment {id}: {body}" for id, body in self.comments.items() if id not in after.comments
        ]


def take_census(settings: WorldSettings) -> Census:
    """The census of a world, running or stopped. Commits of every author count: nobody's may be lost."""
    view = WorldView(settings)
    names = sorted(bare.stem for bare in (settings.forge_dir / "repos" / settings.org).glob("*.git"))
    with contextlib.closing(sqlite3.connect(settings.forge_dir / "forge.db", timeout=30)) as database:
        discussions = database.execute(DISCUSSIONS).fetchall()
        comments = database.execute(COMMENTS, [settings.bot]).fetchall()
    return Census(
        commits={name: frozenset(view.git(name, "rev-list", "--all").split()) for name in names},
        tags={
            name: frozenset(
                ref.removeprefix("refs/tags/") for ref in view.refs(name) if ref.startswith("refs/tags/")
            )
            for name in names
        },
        discussions=frozenset(
            f"{name}#{number}" for name, number, _, author in discussions if author != settings.bot
        ),
        comments={str(id): str(body) for id, body in comments},
        states={f"{name}#{number}": bool(closed) for name, number, closed, _ in discussions},
    )


@dataclass(frozen=True)
class Done:
    """One act of the rehearsal's people, as the world has noted it."""

    act: str
    boundary: str
    error: str
    kept: tuple[Kept, ...] = field(default=())


def acts_done(world: Path) -> list[Done]:
    """The acts that were performed in a world, in their order."""
    file = world / ACTS_FILE
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [
        Done(
            line["act"],
            line["boundary"],
            line["error"],
            tuple(Kept(Kind(kind), where, value) for kind, where, value in line["kept"]),
        )
        for line in lines
    ]


def undone_by_run(settings: WorldSettings, done: list[Done]) -> list[str]:
    """What the people left and is not there any more, one line each; of one thing, the last act on it counts."""
    last = {(kept.kind, kept.where): kept for one in done for kept in one.kept}
    census, view = take_census(settings), WorldView(settings)
    return [problem for kept in last.values() for problem in _differs(settings, view, census, kept)]


def _differs(settings: WorldSettings, view: WorldView, census: Census, kept: Kept) -> Iterator[str]:
    what = f"{kept.kind} {kept.where}"
    match kept.kind:
        case Kind.REF:
            name, ref = kept.where.split(" ")
            commits = census.commits.get(name, frozenset())
            now = view.refs(name).get(ref, "")
            # Others may have gone on from it, muster included; but nobody may have lost it.
            if not kept.value and now:
                yield f"{what} is there again"
            elif kept.value and kept.value not in commits and now != kept.value:
                yield f"{what} is not at {kept.value[:10]}"
        case Kind.COMMIT:
            return  # somebody rewrote it; it may be gone
        case Kind.PULL | Kind.ISSUE:
            if census.states.get(kept.where) is not (kept.value == "closed"):
                yield f"{what} is not {kept.value}"
        case Kind.COMMENT:
            if census.comments.get(kept.where) != kept.value:
                yield f"{what} is not {kept.value!r}"
        case Kind.REPOSITORY:
            if view.bare(kept.where).exists() != bool(kept.value):
                yield f"{what} is {'not there' if kept.value else 'there again'}"
        case Kind.HOST:
            if _on_host(settings, kept.where) != kept.value:
                yield f"{what} was changed"


def _on_host(settings: WorldSettings, where: str) -> str:
    match where:
        case "system":
            return str((settings.host_dir / "run/current-system").resolve())
        case "checkout":
            head = settings.host_dir / "root/cc-ci/.git/refs/heads/main"
            return head.read_text().strip()
        case _:
            file = settings.host_dir / where
            return file.read_text() if file.exists() else ""
