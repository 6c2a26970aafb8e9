"""A carried suite comes into cc-ci once, proven, and leaves nothing behind: on a real forge, with real builds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.ccci.suites import Suite, git_blob, list_tests, load_payload_suites, read_test_names, suites_in
from fixtures.changes import REGISTRY
from fixtures.clients.forge import ForgeWriter, MergeCheckPending
from fixtures.clients.forge_values import TreeEntry
from fixtures.config.options import Mode
from fixtures.errors import Drift
from fixtures.run import recipe_status
from fixtures.run.recipe_status import covered, ran_own_tests
from fixtures.run.record import TestmeVerdict
from fixtures.run.run import Run
from fixtures.suites import coverage
from fixtures.suites import fixture as suites
from fixtures.suites.proposals import COMMIT_LINE
from fixtures.suites.propose import SuiteWork
from fixtures.survey import CcciState
from tests_meta.rehearsal.ci_world import git
from tests_meta.rehearsal.forge_server import ForgeUnderTest, forge
from tests_meta.suites.suite_world import GOOD, PAYLOAD, RED, SuiteWorld, kinds, suite, suite_world

__all__ = ["forge"]

ALL = ("atlas", "beacon", "cinder", "delta", "ember", "fjord", "glade", "hedgedoc")
ON_RECIPE = "recipe-pull-request"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuiteWorld]:
    with suite_world(tmp_path_factory.mktemp("suites"), ALL) as made:
        yield made


def gone_through(run: Run) -> dict[str, str]:
    """Phase 2 of a run: what came of each recipe, in one word."""
    return {name: proposal.outcome.state for name, proposal in suites.propose_suites(run).proposals.items()}


def left_open(world: SuiteWorld, recipe: str) -> Run:
    """A run that proposed a suite for `recipe`, red if it were built, and got no further."""
    run = world.run({recipe: suite(recipe, RED)})
    files = load_payload_suites(run.context.payload)[recipe]
    assert run.context.writer
    SuiteWork(run, run.context.writer, recipe, files).propose()
    assert world.has_branch(run, recipe)
    return run


def test_a_recipe_with_a_folder_in_the_payload_gets_its_suite(
    world: SuiteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One branch, one commit, one pull request, proven, described, merged, branch gone; once and for all.

    The merge is asked for until the forge is done with checking the pull request, however often it begins again.
    """
    begins_again, merge_pull = [True, True, True], ForgeWriter.merge_pull

    def checking_first(self: ForgeWriter, full_name: str, number: int, *, head: str) -> None:
        if begins_again:
            begins_again.pop()
            raise MergeCheckPending(f"{full_name}#{number} was not merged: it is being checked for conflicts.")
        merge_pull(self, full_name, number, head=head)

    monkeypatch.setattr(ForgeWriter, "merge_pull", checking_first)
    run = world.run({"atlas": suite("atlas")})
    assert gone_through(run) == {"atlas": "changed"}
    assert begins_again == []
    (pull,) = world.pulls(run, "atlas")
    assert (pull.merged, pull.author) == (True, run.context.world.forge.bot)
    assert kinds(run) == ["propose-suite", "testme-comment", "describe-suite", "merge-suite"]
    assert world.files(run, "atlas") == set(suite("atlas"))
    assert not world.has_branch(run, "atlas")
    bare = world.world.settings.forge_dir / "repos" / run.context.site.forge.org / "cc-ci.git"
    assert git(bare, "rev-list", "--count", f"{pull.merge_commit}^1..{pull.head}") == "1"
    again = world.run({"atlas": suite("atlas")})
    before = again.context.world.requests()["forge"]
    assert gone_through(again) == {"atlas": "unchanged"}
    assert (kinds(again), again.context.world.requests()["forge"] - before) == ([], 0)


def test_a_branch_that_outlived_its_merge_is_taken_back(world: SuiteWorld) -> None:
    """Killed between the merge and the deletion of its branch: that is all of a merged proposal that goes back."""
    run = world.run({"glade": suite("glade")})
    assert gone_through(run) == {"glade": "changed"}
    (pull,), (proposed, *_) = world.pulls(run, "glade"), run.record.journal.changes()
    assert run.context.writer
    run.context.writer.forge.create_branch(run.context.world.ccci, str(proposed.undo["branch"]), at=pull.head)
    for expected in ("undone", "not-needed"):
        assert REGISTRY[proposed.kind].undo(run.context.writer, run, proposed) == expected
    assert not world.has_branch(run, "glade")


def test_the_pull_request_says_what_it_adds_and_how_it_was_proven(world: SuiteWorld) -> None:
    """Its text names each file, its one commit, the build, and the tests of this suite that ran in it."""
    run = world.run({}, recipes=["atlas"])
    (pull,) = world.pulls(run, "atlas")
    named = COMMIT_LINE.search(pull.body)
    assert named is not None
    assert named[1] == pull.head
    for path in suite("atlas"):
        assert f"`tests/atlas/{path}`" in pull.body
    build = next(b for b in run.surveys.now.builds if b.commit == pull.head and b.event == "custom")
    assert f"[build {build.number}]({run.context.world.drone.build_url(build.number)})" in pull.body
    assert "- passed: `custom::functional/test_front_page.py::test_front_page_answers`" in pull.body
    assert "test_generic" not in pull.body


def test_an_unproven_proposal_is_found_again_then_replaced_then_taken_back(world: SuiteWorld) -> None:
    """The next run takes the open one up; red, it stays. Another suite: closed, and anew as one commit."""
    (first,) = world.pulls(left_open(world, "beacon"), "beacon")
    red = world.run({"beacon": suite("beacon", RED)})
    assert gone_through(red) == {"beacon": "failed"}
    assert "not proven" in red.record.findings[0].what
    assert kinds(red) == ["testme-comment"]
    assert world.pulls(red, "beacon") == [first]
    assert (first.state, world.files(red, "beacon")) == ("open", set())

    mended = world.run({"beacon": suite("beacon")})
    assert gone_through(mended) == {"beacon": "changed"}
    old, new = world.pulls(mended, "beacon")
    assert (old.number, old.state, old.merged, new.merged) == (first.number, "closed", False, True)
    assert kinds(mended)[:2] == ["withdraw-suite", "propose-suite"]

    assert mended.context.writer
    for expected in ("undone", "not-needed"):
        for change in reversed(mended.record.journal.changes()):
            if change.kind != "testme-comment":
                result = REGISTRY[change.kind].undo(mended.context.writer, mended, change)
                # What was merged is reverted, not unproposed.
                assert result == ("not-needed" if change.kind == "propose-suite" else expected)
    assert world.files(mended, "beacon") == set()
    old, new = world.pulls(mended, "beacon")
    assert (old.state, old.head, "How it was proven" in new.body) == ("open", first.head, False)
    assert world.has_branch(mended, "beacon")


def test_a_proposal_that_somebody_made_superfluous_is_closed(world: SuiteWorld) -> None:
    """Somebody wrote another suite meanwhile: a plan says that it would be closed, an apply closes it."""
    left_open(world, "cinder")
    world.commit({f"tests/cinder/{path}": text for path, text in suite("cinder").items()}, branch="main")
    plan = world.run({"cinder": suite("cinder", RED)}, mode=Mode.PLAN)
    assert gone_through(plan) == {"cinder": "unchanged"}
    assert [(step.kind, step.recipe) for step in plan.record.planned] == [("withdraw-suite", "cinder")]
    assert world.has_branch(plan, "cinder")
    apply = world.run({"cinder": suite("cinder", RED)})
    assert gone_through(apply) == {"cinder": "unchanged"}
    assert kinds(apply) == ["withdraw-suite"]
    (pull,) = world.pulls(apply, "cinder")
    assert (pull.state, pull.merged, world.has_branch(apply, "cinder")) == ("closed", False, False)
    repeated = world.run({"cinder": suite("cinder", RED)})
    assert (gone_through(repeated), kinds(repeated)) == ({"cinder": "unchanged"}, [])


def test_what_a_person_pushed_to_a_proposal_is_left_to_them(world: SuiteWorld) -> None:
    """A proposal with somebody else's commit is neither merged nor closed; that is a finding."""
    left_open(world, "delta")
    world.commit({"tests/delta/functional/test_theirs.py": GOOD}, branch="muster/suite-delta")
    run = world.run({"delta": suite("delta")})
    assert gone_through(run) == {"delta": "failed"}
    assert kinds(run) == []
    assert "not the commit that muster proposed" in run.record.findings[0].what
    (pull,) = world.pulls(run, "delta")
    assert pull.state == "open"


def test_a_suite_unlike_the_template_is_one_finding_and_stops_nothing_else(world: SuiteWorld) -> None:
    """Every difference is named at once, no pull request is opened, and the other carried suite is settled."""
    bad = suite(
        "fjord",
        "import requests\nfrom . import client\n\n\ndef test_it(live_app, browser):\n    pass\n",
        recipe_meta_py='HEALHT_PATH = "/"\n',
    )
    run = world.run({"atlas": suite("atlas"), "fjord": bad}, mode=Mode.PLAN)
    assert gone_through(run) == {"atlas": "unchanged", "fjord": "failed"}
    (finding,) = run.record.findings
    for word in ("HEALHT_PATH", "requests", "relative import", "browser"):
        assert word in finding.what
    apply = world.run({"fjord": bad})
    assert (gone_through(apply), kinds(apply), world.pulls(apply, "fjord")) == ({"fjord": "failed"}, [], [])


def test_it_is_proven_on_the_recipe_where_cc_ci_cannot_test_its_own(world: SuiteWorld, tmp_path: Path) -> None:
    """`suite_proof = "recipe-pull-request"`: hedgedoc's suite is merged, then proven on hedgedoc's own #1."""
    (tmp_path / "hedgedoc").symlink_to(PAYLOAD / "hedgedoc")
    run = world.run(tmp_path, proof=ON_RECIPE)
    proposal = suites.propose_suites(run).proposals["hedgedoc"]
    assert proposal.outcome.state == "changed", proposal.outcome.message
    assert kinds(run) == ["propose-suite", "merge-suite", "testme-comment", "describe-suite"]
    assert run.record.journal.changes()[2].target.endswith("/hedgedoc#1")
    assert proposal.verdict is not None
    assert proposal.verdict.suite_commit == run.context.world.forge.head(run.context.world.ccci, "main")
    assert proposal.not_run == []
    assert "after the merge" in world.pulls(run, "hedgedoc")[0].body
    assert all(change.undone or change.result == "done" for change in run.record.journal.changes())


def test_a_merged_suite_that_is_red_on_the_recipe_is_reverted_and_comes_back_when_mended(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """hedgedoc's app is broken: the merge is taken back at once. The app is mended: the same suite comes in."""
    (tmp_path / "hedgedoc").symlink_to(PAYLOAD / "hedgedoc")
    folder = tmp_path_factory.mktemp("red")
    with suite_world(folder, ("hedgedoc",), faults=("red-build:hedgedoc",)) as red:
        run = red.run(tmp_path, proof=ON_RECIPE)
        assert gone_through(run) == {"hedgedoc": "failed"}
        assert "is not proven" in run.record.findings[0].what
        merge = next(change for change in run.record.journal.changes() if change.kind == "merge-suite")
        assert (merge.result, merge.undone) == ("failed", "undone")
        assert red.files(run, "hedgedoc") == set()
        assert red.pulls(run, "hedgedoc")[0].merged
        assert covered(run.record, run.surveys, "hedgedoc").ok is False

        red.world.stop("ci")
        dataclasses.replace(red.world.settings, faults=()).save()
        red.world.start("ci")
        mended = red.run(tmp_path, proof=ON_RECIPE)
        assert gone_through(mended) == {"hedgedoc": "changed"}
        assert [pull.merged for pull in red.pulls(mended, "hedgedoc")] == [True, True]
        assert "functional/test_account.py" in red.files(mended, "hedgedoc")
        assert covered(mended.record, mended.surveys, "hedgedoc").ok is True


def polled_by(run: Run, *recipes: str) -> None:
    """Let the run's survey have a host whose bridge polls these recipes."""
    csv = ",".join((run.context.world.ccci, *(run.context.world.mirror(name) for name in recipes)))
    host: Any = SimpleNamespace(bridge=SimpleNamespace(poll_set=csv, state="running"))
    run.surveys.now = dataclasses.replace(run.surveys.now, host=host)


def test_a_recipe_that_nobody_polls_is_not_merged_unproven(world: SuiteWorld) -> None:
    """Where a comment on the recipe is the only proof, and it would be ignored, nothing is begun."""
    run = world.run({"ember": suite("ember")}, proof=ON_RECIPE)
    polled_by(run, "atlas")
    assert gone_through(run) == {"ember": "failed"}
    assert "not polled yet" in run.record.findings[0].what
    assert (kinds(run), world.files(run, "ember")) == ([], set())


def test_polled_without_tests_and_tests_without_polling_are_findings(world: SuiteWorld) -> None:
    """Each names its recipes, those off the roster too; when all is in order there is none."""
    run = world.run({}, recipes=["uptime-kuma", "mumble", "ember"])
    polled_by(run, "uptime-kuma", "ember")
    coverage.report(run.context, run.record, run.surveys)
    found = {finding.id: finding for finding in run.record.findings}
    assert set(found) == {"polled-but-uncovered", "covered-but-unpolled"}
    assert "own: ember." in found["polled-but-uncovered"].what
    assert found["polled-but-uncovered"].severity == "action"
    assert "mumble" in found["covered-but-unpolled"].what
    assert "ghost (not on the roster)" in found["covered-but-unpolled"].what
    for helper in ("_generic", "unit", "regression", "concurrency"):
        assert helper not in found["covered-but-unpolled"].what
    fine = world.run({}, recipes=["uptime-kuma"])
    assert fine.surveys.now.ccci
    polled_by(fine, *fine.surveys.now.ccci.suites)
    coverage.report(fine.context, fine.record, fine.surveys)
    assert fine.record.findings == []


def ccci_with(suite: Suite, head: str = "a" * 40) -> CcciState:
    return CcciState(head, None, {suite.recipe: suite}, (), None, {})


def test_a_green_that_ran_none_of_a_recipes_tests_does_not_cover_it() -> None:
    """ "custom skipped" at the head where there was a suite is no; red, or at another commit, is not known."""
    ghost = Suite(
        "ghost",
        {"recipe_meta.py": "1", "functional/test_api.py": "2"},
        {"functional/test_api.py": ("test_posts",)},
    )
    rows = (("install::_generic/test_generic_install.py::test_serves", "passed"),)
    green = TestmeVerdict("ghost", True, True, True, build=7, tests=rows, suite_commit="a" * 40)
    own = (*rows, ("custom::functional/test_api.py::test_posts", "passed"))

    def judged(verdict: TestmeVerdict | None) -> bool | None:
        return ran_own_tests(verdict, ccci_with(ghost), "ghost")[0]

    assert judged(green) is False
    assert judged(dataclasses.replace(green, tests=own)) is True
    assert judged(dataclasses.replace(green, tests=(*rows, ("test_posts[1]", "passed")))) is True
    assert judged(dataclasses.replace(green, green=False)) is None
    assert judged(dataclasses.replace(green, suite_commit="b" * 40)) is None
    assert judged(dataclasses.replace(green, tests=())) is None
    assert judged(None) is None


def test_what_this_run_saw_of_a_build_is_part_of_the_roll_and_a_finding(world: SuiteWorld) -> None:
    """The hollow green makes *covered* a no with its build, and tells an operator where to look."""
    run = world.run({}, recipes=["mumble"])
    assert run.surveys.now.ccci
    assert covered(run.record, run.surveys, "mumble").ok is True
    assert covered(run.record, run.surveys, "mumble").evidence["last build"] == recipe_status.NOT_ASKED
    rows = (("install::_generic/test_generic_install.py::test_serves", "passed"),)
    head = run.surveys.now.ccci.head
    run.record.decide(
        TestmeVerdict("mumble", True, True, True, build=7, tests=rows, suite_commit=head), known_red=""
    )
    assert covered(run.record, run.surveys, "mumble").ok is False
    coverage.report(run.context, run.record, run.surveys)
    assert [finding.id for finding in run.record.findings] == ["hollow-mumble"]


def test_a_file_called_test_that_holds_none_covers_nothing(world: SuiteWorld) -> None:
    """The names are read from cc-ci at its head in one request; a file without any is named as what it is."""
    run = world.run({}, recipes=["mumble"])
    assert run.surveys.now.ccci
    mumble = run.surveys.now.ccci.suites["mumble"]
    assert mumble.test_names is not None
    assert "test_root_answers" in mumble.test_names["functional/test_health_check.py"]
    archive = run.context.world.forge.archive(run.context.world.ccci, run.surveys.now.ccci.head)
    assert archive
    # A file whose bytes are not those that the tree lists is not taken for it.
    other = dataclasses.replace(mumble, files=dict.fromkeys(mumble.files, "0" * 40))
    assert read_test_names({"mumble": other}, "tests", archive)["mumble"].test_names is None
    hollow = dataclasses.replace(mumble, test_names=dict.fromkeys(mumble.own_tests, ()))
    assert not hollow.covers
    assert hollow.lacks == "no test in functional/test_health_check.py, functional/test_web_client.py"
    assert read_test_names({"mumble": mumble}, "tests", b"no archive")["mumble"].test_names is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def test_a(): ...\nasync def test_b(): ...\ndef helper(): ...\n", ("test_a", "test_b")),
        ("class TestIt:\n    def test_c(self): ...\n    def setup(self): ...\n", ("TestIt::test_c",)),
        ("def make():\n    def test_inner(): ...\n", ()),
        ("# nothing yet\n", ()),
        ("def test_broken(:\n", ()),
    ],
)
def test_named_tests_are_those_that_pytest_would_collect(text: str, names: tuple[str, ...]) -> None:
    """Functions `test…` and methods of `Test…`; what does not parse has none."""
    assert list_tests(text.encode()) == names


def test_folders_that_are_no_recipe_are_no_suites() -> None:
    """By rule: underscore folders, those that the site names, and files beside the folders."""
    paths = ["tests/conftest.py", "tests/_generic/test_a.py", "tests/custom-html-red-bad/recipe_meta.py"]
    paths += ["tests/ghost/recipe_meta.py", "docs/ghost/recipe_meta.py"]
    tree = [TreeEntry(path, "blob", git_blob(b"")) for path in paths]
    assert list(suites_in(tree, "tests", other_folders=["custom-html-*-bad"])) == ["ghost"]


def test_without_a_template_nothing_is_proposed(world: SuiteWorld) -> None:
    """cc-ci has no such folder: there is nothing to compare with, and that is said."""
    run = world.run({"ember": suite("ember")}, mode=Mode.PLAN)
    site = dataclasses.replace(
        run.context.site, ccci=dataclasses.replace(run.context.site.ccci, template="nobody")
    )
    context = dataclasses.replace(run.context, site=site, world=dataclasses.replace(run.context.world, site=site))
    with pytest.raises(Drift, match="template of all suites in tests/nobody/"):
        suites.demand_conformity(context, run.surveys, "ember", {})


def test_a_forge_hands_out_a_commit_with_all_its_files(forge: ForgeUnderTest) -> None:
    """As a tar.gz, in which the suites' files are found byte for byte; 500 for a commit that is not there."""
    files = {f"tests/ghost/{path}": text for path, text in suite("ghost").items()}
    remote = forge.new_repo(files)
    path = f"{remote.api}/archive/{remote.head()}.tar.gz"
    answer = forge.until(lambda: (got := forge.api().get(path)).status_code == 200 and got, "the archive")
    blobs = {name.removeprefix("tests/ghost/"): git_blob(text.encode()) for name, text in files.items()}
    (read,) = read_test_names({"ghost": Suite("ghost", blobs)}, "tests", answer.content).values()
    assert read.test_names == {"functional/test_front_page.py": ("test_front_page_answers",)}
    assert forge.api().get(f"{remote.api}/archive/{'0' * 40}.tar.gz").status_code == 500


def test_a_closed_proposal_can_be_opened_again(forge: ForgeUnderTest) -> None:
    """Its branch deleted (which closes it, after a while) and made again at the same commit: the pull request opens
    with the head it had."""
    remote, bot = forge.new_repo({"a": "1"}), forge.api()
    pull = forge.new_pull(remote, {"b": "2"}, branch="muster/suite-x")
    path = f"{remote.api}/pulls/{pull['number']}"
    assert bot.delete(f"{remote.api}/branches/muster/suite-x").status_code == 204
    forge.until(lambda: forge.pull(remote, pull["number"])["state"] == "closed", "it to be closed")
    made = bot.post(
        f"{remote.api}/branches",
        json={"new_branch_name": "muster/suite-x", "old_ref_name": pull["head"]["sha"]},
    )
    assert made.status_code == 201, made.text
    assert bot.patch(path, json={"state": "open"}).status_code == 201
    now = forge.pull(remote, pull["number"])
    assert (now["state"], now["head"]["sha"]) == ("open", pull["head"]["sha"])
    assert now["head"]["ref"] == "muster/suite-x"
