"""The checks that the undo of a mirror makes before it deletes anything, and findings about mirrors.

The world is that of 2026-06-02. Phase 1's own code creates each mirror, another person changes it through the
forge's API, and then the undo runs.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import pytest

from fixtures.clients.git import Refs, Remote, Workspace, advertised_refs
from fixtures.config.roster import load_roster
from fixtures.config.site import load_site
from fixtures.errors import Conflict, Refused, Unknown
from fixtures.journal.kinds import Answer, ChangeKind
from fixtures.journal.reader import Change
from fixtures.mirrors.fixture import report_unusable_refs, sync_mirror
from fixtures.mirrors.step import plan_step
from fixtures.mirrors.sync import MirrorSync
from fixtures.mirrors.undo import delete_mirror
from fixtures.mirrors.unmirrored import report_unmirrored
from fixtures.run.outcome import OutcomeState
from fixtures.run.recipe_status import mirrored
from fixtures.run.run import Run
from fixtures.survey import Survey
from tests_meta.in_process_run import close_run, open_run
from tests_meta.muster_runs import NIGHT, WorldPool
from tests_meta.reference_night import prepare_initial_world
from tests_meta.world_view import WorldView

MISSING = "mumble"
Person = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def run(world_pool: WorldPool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run that may write, before its phase 1."""
    folder = tmp_path_factory.mktemp("run")
    prepare_initial_world(world_pool)
    with world_pool.live(NIGHT):
        made = open_run(load_site(world_pool.site), load_roster(world_pool.roster), folder)
        yield made
        close_run(made)


@pytest.fixture
def person(run: Run, world_pool: WorldPool) -> Iterator[Person]:
    """Another person with write access, who uses the forge's API for the new mirror."""
    token = (world_pool.world / "secrets/forge-token").read_text().strip()
    base = f"{run.context.site.forge.url}/api/v1/repos/{run.context.site.forge.org}/{MISSING}"
    with httpx.Client(headers={"Authorization": f"token {token}"}, trust_env=False, timeout=20) as client:

        def ask(method: str, path: str = "", **body: object) -> httpx.Response:
            return client.request(method, base + path, json=body or None)

        yield ask
        ask("DELETE")


@pytest.fixture
def created(run: Run, person: Person) -> list[Change]:
    """The changes by which this run created the missing mirror, newest first."""
    known = {change.id for change in run.record.journal.changes()}
    make(run)
    return [change for change in reversed(run.record.journal.changes()) if change.id not in known]


def make(run: Run) -> None:
    recipe = next(recipe for recipe in run.context.roster.recipes if recipe.name == MISSING)
    assert run.context.writer is not None
    MirrorSync(run, run.context.writer, plan_step(recipe, run.surveys.now)).apply()


def creation(changes: list[Change]) -> Change:
    return next(change for change in changes if change.kind == ChangeKind.CREATE_MIRROR)


def test_unchanged_new_mirror_is_deleted(run: Run, created: list[Change], world_pool: WorldPool) -> None:
    """Positive control for the tests below: an unchanged new mirror is deleted, and a second undo does nothing."""
    world_view = WorldView(world_pool.settings)
    assert world_view.refs(MISSING) == world_view.refs(MISSING, upstream=True)
    assert run.context.writer is not None
    assert delete_mirror(run.context.writer, run, creation(created)) == "undone"
    assert world_view.refs(MISSING) == {}
    assert delete_mirror(run.context.writer, run, creation(created)) == "not-needed"


def test_creation_with_a_lost_answer_is_looked_up(run: Run, person: Person, world_pool: WorldPool) -> None:
    """After a lost answer, a repository with this run's mark is adopted and filled; otherwise it is created once."""
    world_view = WorldView(world_pool.settings)
    creation_of_one = {"method": "POST", "path": "^/api/v1/orgs/[^/]+/repos$", "times": 1}
    with world_pool.breaking(creation_of_one | {"action": "reset"}), pytest.raises(Unknown):
        make(run)
    assert person("GET").status_code == 404
    assert run.record.journal.changes()[-1].result == "unknown"
    with world_pool.breaking(creation_of_one | {"action": "reset-after"}):
        make(run)
    assert world_view.refs(MISSING) == world_view.refs(MISSING, upstream=True) != {}
    newest = next(
        change for change in reversed(run.record.journal.changes()) if change.kind == ChangeKind.CREATE_MIRROR
    )
    assert newest.result == "done"


def _a_branch(person: Person, _: WorldView) -> None:
    assert person("POST", "/branches", new_branch_name="mine", old_ref_name="main").status_code == 201


def _a_commit(person: Person, _: WorldView) -> None:
    content = base64.b64encode(b"mine\n").decode()
    file = {"operation": "create", "path": "mine.txt", "content": content}
    made = person("POST", "/contents", files=[file], message="Mine", branch="main")
    assert made.status_code == 201


def _a_tag(_: Person, world_view: WorldView) -> None:
    world_view.git(MISSING, "tag", "mine", "main")


def _a_moved_tag(_: Person, world_view: WorldView) -> None:
    tag = world_view.git(MISSING, "tag", "--list").splitlines()[0]
    world_view.git(MISSING, "tag", "--force", tag, "main^{tree}")


def _an_issue(person: Person, _: WorldView) -> None:
    assert person("POST", "/issues", title="It does not start").status_code == 201


@pytest.mark.parametrize("spoil", [_a_branch, _a_commit, _a_tag, _a_moved_tag, _an_issue])
def test_used_mirror_is_not_deleted(
    run: Run,
    created: list[Change],
    person: Person,
    world_pool: WorldPool,
    spoil: Callable[[Person, WorldView], None],
) -> None:
    """With another person's branch, commit, tag, moved tag or issue the undo refuses, and everything stays."""
    world_view = WorldView(world_pool.settings)
    spoil(person, world_view)
    before = world_view.refs(MISSING)
    assert run.context.writer is not None
    with pytest.raises(Conflict, match="left alone"):
        delete_mirror(run.context.writer, run, creation(created))
    assert world_view.refs(MISSING) == before != {}


def test_repository_without_the_runs_mark_is_not_deleted(run: Run, created: list[Change], person: Person) -> None:
    """A repository that was deleted and created again by somebody else lacks this run's mark, and stays."""
    assert person("DELETE").status_code == 204
    assert run.context.writer is not None
    run.context.writer.forge.create_repository(
        run.context.site.forge.org, MISSING, private=True, description="Mine"
    )
    assert delete_mirror(run.context.writer, run, creation(created)) == "not-needed"
    assert person("GET").status_code == 200


def test_odd_tags_do_not_hold_up_a_mirror(
    run: Run, person: Person, world_pool: WorldPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tag in Latin-1 is mirrored; one that cannot be fetched and one that the forge refuses are named instead."""
    world_view = WorldView(world_pool.settings)
    bare, latin = world_view.bare(MISSING, upstream=True), b"refs/tags/caf\xe9"
    for ref in (latin, b"refs/tags/refused"):
        words: list[str | bytes] = ["git", "-c", f"safe.directory={bare}", "update-ref", ref, "refs/heads/main"]
        subprocess.run(words, cwd=bare, check=True)
    name = f"{run.context.site.upstream.owner}/{MISSING}"
    upstream = advertised_refs(run.context.world.upstream, name)
    assert upstream is not None
    upstream.tags["gone"] = upstream.tag_objects["gone"] = "a" * 40
    survey = replace(run.surveys.now, upstreams={**run.surveys.now.upstreams, MISSING: upstream})
    monkeypatch.setattr(run.surveys, "now", survey)
    push = Workspace.push

    def refuse(self: Workspace, remote: Remote, store: str, updates: list[tuple[str, str, str]]) -> None:
        if any(ref == "refs/tags/refused" for ref, _, _ in updates):
            raise Refused("hook declined")
        push(self, remote, store, updates)

    monkeypatch.setattr(Workspace, "push", refuse)
    recipe = next(recipe for recipe in run.context.roster.recipes if recipe.name == MISSING)
    outcome = sync_mirror(run, plan_step(recipe, survey))
    assert outcome.state is OutcomeState.CHANGED, outcome.message
    mirror = advertised_refs(run.context.world.mirrors, run.context.world.mirror(MISSING))
    assert mirror is not None
    assert set(mirror.tags) == set(upstream.tags) - {"gone", "refused"}
    assert "caf\\xe9" in mirror.tags
    assert set(run.surveys.unmirrored[MISSING]) == {"gone", "refused"}
    report_unmirrored(run.context, run.record, run.surveys, MISSING)
    (found,) = [finding for finding in run.record.findings if finding.id == f"tags-not-mirrored-{MISSING}"]
    assert "gone, refused" in found.what


def test_rewritten_upstream_is_not_taken_for_commits_of_the_mirror(
    run: Run, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A main that upstream rewrote after the survey cannot be fetched any more; no ``--force-sync`` is suggested."""
    behind = next(one for one in run.context.roster.recipes if one.name == "keycloak")
    seen = run.surveys.now.upstreams[behind.name]
    gone = replace(seen, branches={**seen.branches, "main": "a" * 40})
    survey = replace(run.surveys.now, upstreams={**run.surveys.now.upstreams, behind.name: gone})
    monkeypatch.setattr(run.surveys, "now", survey)
    outcome = sync_mirror(run, plan_step(behind, survey))
    assert outcome.state is OutcomeState.FAILED
    assert "was rewritten during this run" in outcome.message
    assert "force-sync" not in outcome.message


def look(run: Run, *, mirror: Refs, upstream: Refs) -> Survey:
    now = run.surveys.now
    return replace(now, mirrors={**now.mirrors, MISSING: mirror}, upstreams={**now.upstreams, MISSING: upstream})


@pytest.mark.parametrize(
    ("mirror", "commits", "tags"),
    [
        (Refs("main", {"main": "b" * 40}, {"v1": "b" * 40}), None, 1),
        (Refs("main", {"main": "a" * 40}, {"v1": "a" * 40}), "not level", 0),
        (Refs("main", {"main": "b" * 40}), "not level", 0),
        (Refs("main", {"main": "c" * 40}, {"v1": "b" * 40, "v2": "c" * 40}), "level", 0),
    ],
    ids=["as-upstream-was", "pushed-to", "tags-missing-before", "level"],
)
def test_mirror_is_behind_during_a_run_only_if_it_has_what_upstream_had(
    run: Run, mirror: Refs, commits: int | str | None, tags: int
) -> None:
    """Upstream that goes on during a run leaves a tolerated lag; a mirror that was never level has none."""
    had = Refs("main", {"main": "b" * 40}, {"v1": "b" * 40})
    has = Refs("main", {"main": "c" * 40}, {"v1": "b" * 40, "v2": "c" * 40})
    surveys = replace(
        run.surveys,
        now=look(run, mirror=mirror, upstream=has),
        earlier=[(0, look(run, mirror=mirror, upstream=had))],
    )
    lag, answer = surveys.lag_of(MISSING), mirrored(surveys, MISSING).answer
    if isinstance(commits, str):
        assert lag is None
    else:
        assert lag is not None
        assert (lag.commits, lag.tags, lag.tolerated, lag.during_run) == (commits, tags, True, True)
    assert answer is not Answer.YES or commits != "not level"


def test_refs_with_unusable_names_are_a_finding(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refs of upstream that git does not allow are one finding for the recipe, which names them."""
    refs = Refs("main", unusable=("refs/tags/v1:2", *(f"refs/tags/{n}..x" for n in range(20))))
    survey = replace(run.surveys.now, upstreams={**run.surveys.now.upstreams, MISSING: refs})
    monkeypatch.setattr(run.surveys, "now", survey)
    report_unusable_refs(run.context, run.record, run.surveys, MISSING)
    (found,) = [finding for finding in run.record.findings if finding.id == f"refs-unusable-{MISSING}"]
    assert "refs/tags/v1:2, refs/tags/0..x" in found.what
    assert "and 11 more" in found.what
