"""Phase 2 on a real forge with real builds: a shipped suite is proposed, proven and merged once without leftovers."""

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
from fixtures.config.run_options import Mode
from fixtures.errors import Drift
from fixtures.journal.kinds import Answer
from fixtures.run import recipe_status
from fixtures.run.recipe_status import covered, ran_own_tests
from fixtures.run.recorder import TestmeVerdict
from fixtures.run.run import Run
from fixtures.suites import coverage
from fixtures.suites import fixture as suites
from fixtures.suites.proposals import COMMIT_LINE
from fixtures.suites.propose import SuiteProposal
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
    """Run phase 2; returns the outcome of each recipe."""
    return {name: proposal.outcome.state for name, proposal in suites.propose_suites(run).proposals.items()}


def left_open(world: SuiteWorld, recipe: str) -> Run:
    """A run that has proposed a failing suite for `recipe` and stopped then."""
    run = world.run({recipe: suite(recipe, RED)})
    files = load_payload_suites(run.context.payload)[recipe]
    assert run.context.writer
    SuiteProposal(run, run.context.writer, recipe, files).propose()
    assert world.has_branch(run, recipe)
    return run


def test_shipped_suite_is_proposed_proven_and_merged(world: SuiteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shipped suite gets a branch, one commit and a pull request, is proven, described and merged, once.

    The merge is repeated while the forge checks the pull request, and the branch is deleted.
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


def test_branch_left_after_a_merge_is_deleted(world: SuiteWorld) -> None:
    """If a run is killed between the merge and the deletion of the branch, the undo deletes only the branch."""
    run = world.run({"glade": suite("glade")})
    assert gone_through(run) == {"glade": "changed"}
    (pull,), (proposed, *_) = world.pulls(run, "glade"), run.record.journal.changes()
    assert run.context.writer
    run.context.writer.forge.create_branch(run.context.world.ccci, str(proposed.undo["branch"]), at=pull.head)
    for expected in ("undone", "not-needed"):
        assert REGISTRY[proposed.kind].undo(run.context.writer, run, proposed) == expected
    assert not world.has_branch(run, "glade")


def test_pull_request_describes_its_content_and_proof(world: SuiteWorld) -> None:
    """The text has every file, the commit, the build, and the tests of this suite that the build ran."""
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


def test_unproven_proposal_is_reused_then_replaced_then_undone(world: SuiteWorld) -> None:
    """The next run reuses an open, red proposal; a changed suite closes it and opens a new one with one commit."""
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
                # A merge is reverted; the proposal itself stays merged.
                assert result == ("not-needed" if change.kind == "propose-suite" else expected)
    assert world.files(mended, "beacon") == set()
    old, new = world.pulls(mended, "beacon")
    assert (old.state, old.head, "How it was proven" in new.body) == ("open", first.head, False)
    assert world.has_branch(mended, "beacon")


def test_superfluous_proposal_is_closed(world: SuiteWorld) -> None:
    """If somebody else has added a suite, a plan shows that the proposal would be closed, and an apply closes it."""
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


def test_proposal_with_another_persons_commit_is_left_alone(world: SuiteWorld) -> None:
    """A proposal with another person's commit is neither merged nor closed, and is a finding."""
    left_open(world, "delta")
    world.commit({"tests/delta/functional/test_theirs.py": GOOD}, branch="muster/suite-delta")
    run = world.run({"delta": suite("delta")})
    assert gone_through(run) == {"delta": "failed"}
    assert kinds(run) == []
    assert "not the commit that muster proposed" in run.record.findings[0].what
    (pull,) = world.pulls(run, "delta")
    assert pull.state == "open"


def test_nonconforming_suite_is_one_finding(world: SuiteWorld) -> None:
    """All differences are in one finding, no pull request is opened, and the other suite is processed."""
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


def test_suite_is_proven_on_the_recipe_pull_request(world: SuiteWorld, tmp_path: Path) -> None:
    """With `suite_proof = "recipe-pull-request"` the suite is merged, and then proven on hedgedoc's pull request 1."""
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


def test_merged_suite_that_is_red_is_reverted_and_merged_once_fixed(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """With a broken hedgedoc app the merge is reverted at once; with a fixed app the same suite is merged."""
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
        assert covered(run.record, run.surveys, "hedgedoc").answer is Answer.NO

        red.world.stop("ci")
        dataclasses.replace(red.world.settings, faults=()).save()
        red.world.start("ci")
        mended = red.run(tmp_path, proof=ON_RECIPE)
        assert gone_through(mended) == {"hedgedoc": "changed"}
        assert [pull.merged for pull in red.pulls(mended, "hedgedoc")] == [True, True]
        assert "functional/test_account.py" in red.files(mended, "hedgedoc")
        assert covered(mended.record, mended.surveys, "hedgedoc").answer is Answer.YES


def polled_by(run: Run, *recipes: str) -> None:
    """Put a host whose bridge polls these recipes into the run's survey."""
    csv = ",".join((run.context.world.ccci, *(run.context.world.mirror(name) for name in recipes)))
    host: Any = SimpleNamespace(bridge=SimpleNamespace(poll_set=csv, state="running"))
    run.surveys.now = dataclasses.replace(run.surveys.now, host=host)


def test_suite_of_an_unpolled_recipe_is_not_merged_unproven(world: SuiteWorld) -> None:
    """If only a comment on the recipe can prove it, and the recipe is not polled, nothing is started."""
    run = world.run({"ember": suite("ember")}, proof=ON_RECIPE)
    polled_by(run, "atlas")
    assert gone_through(run) == {"ember": "failed"}
    assert "not polled yet" in run.record.findings[0].what
    assert (kinds(run), world.files(run, "ember")) == ([], set())


def test_polled_without_tests_and_tests_without_polling_are_findings(world: SuiteWorld) -> None:
    """Both findings name their recipes, including those not in the roster; there is none if all is in order."""
    run = world.run({}, recipes=["uptime-kuma", "mumble", "ember"])
    polled_by(run, "uptime-kuma", "ember")
    coverage.report(run.context, run.record, run.surveys, passed=range(7))
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
    coverage.report(fine.context, fine.record, fine.surveys, passed=range(7))
    assert fine.record.findings == []


def ccci_with(suite: Suite, head: str = "a" * 40) -> CcciState:
    return CcciState(head, None, {suite.recipe: suite}, (), None, {})


def test_green_without_own_tests_does_not_cover_the_recipe() -> None:
    """A green build at the suite's head that ran none of its tests is no coverage; red, or another head, is unknown."""
    ghost = Suite(
        "ghost",
        {"recipe_meta.py": "1", "functional/test_api.py": "2"},
        {"functional/test_api.py": ("test_posts",)},
    )
    rows = (("install::_generic/test_generic_install.py::test_serves", "passed"),)
    green = TestmeVerdict("ghost", Answer.YES, Answer.YES, Answer.YES, build=7, tests=rows, suite_commit="a" * 40)
    own = (*rows, ("custom::functional/test_api.py::test_posts", "passed"))

    def judged(verdict: TestmeVerdict | None) -> Answer:
        return ran_own_tests(verdict, ccci_with(ghost), "ghost")[0]

    assert judged(green) is Answer.NO
    assert judged(dataclasses.replace(green, tests=own)) is Answer.YES
    assert judged(dataclasses.replace(green, tests=(*rows, ("test_posts[1]", "passed")))) is Answer.YES
    assert judged(dataclasses.replace(green, green=Answer.NO)) is Answer.UNKNOWN
    assert judged(dataclasses.replace(green, suite_commit="b" * 40)) is Answer.UNKNOWN
    assert judged(dataclasses.replace(green, tests=())) is Answer.UNKNOWN
    assert judged(None) is Answer.UNKNOWN


def test_green_without_own_tests_is_in_the_status_and_a_finding(world: SuiteWorld) -> None:
    """A green without own tests makes *covered* false with its build, and is a finding for an operator."""
    run = world.run({}, recipes=["mumble"])
    assert run.surveys.now.ccci
    assert covered(run.record, run.surveys, "mumble").answer is Answer.YES
    assert covered(run.record, run.surveys, "mumble").evidence["last build"] == recipe_status.NOT_ASKED
    assert covered(run.record, run.surveys, "mumble").evidence["proven"].startswith("no: no build is known")
    rows = (("install::_generic/test_generic_install.py::test_serves", "passed"),)
    head = run.surveys.now.ccci.head
    run.record.decide(
        TestmeVerdict("mumble", Answer.YES, Answer.YES, Answer.YES, build=7, tests=rows, suite_commit=head),
        known_red="",
    )
    assert covered(run.record, run.surveys, "mumble").answer is Answer.NO
    assert covered(run.record, run.surveys, "mumble").evidence["proven"] == "no"
    coverage.report(run.context, run.record, run.surveys, passed=range(7))
    assert [finding.id for finding in run.record.findings] == ["hollow-mumble"]


def test_suite_is_proven_when_each_of_its_tests_ran(world: SuiteWorld) -> None:
    """*Covered* is a suite that stands; *proven* one of which the latest build ran each test that can fail."""
    run = world.run({}, recipes=["mumble"])
    assert run.surveys.now.ccci
    every = sorted(run.surveys.now.ccci.suites["mumble"].sound_tests)
    rows = tuple((f"custom::{name}", "passed") for name in every)
    verdict = TestmeVerdict("mumble", Answer.YES, Answer.YES, Answer.YES, build=7, tests=rows)

    def proven(verdict: TestmeVerdict) -> str:
        run.record.decide(verdict, known_red="")
        return covered(run.record, run.surveys, "mumble").evidence["proven"]

    assert proven(verdict) == "yes"
    skipped = (*rows[:-1], (rows[-1][0], "skipped"))
    assert proven(dataclasses.replace(verdict, tests=skipped)) == f"no: not run or skipped: {every[-1]}"
    assert proven(dataclasses.replace(verdict, tests=rows[:-1])) == f"no: not run or skipped: {every[-1]}"


def test_file_without_a_test_function_covers_nothing(world: SuiteWorld) -> None:
    """Test names are read from cc-ci's head in one request; a file without any is named."""
    run = world.run({}, recipes=["mumble"])
    assert run.surveys.now.ccci
    mumble = run.surveys.now.ccci.suites["mumble"]
    assert mumble.test_names is not None
    assert "test_root_answers" in mumble.test_names["functional/test_health_check.py"]
    archive = run.context.world.forge.archive(run.context.world.ccci, run.surveys.now.ccci.head)
    assert archive
    # A file whose blob id differs from the tree's does not count.
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
def test_listed_tests_are_those_that_pytest_collects(text: str, names: tuple[str, ...]) -> None:
    """Functions `test…` and methods of classes `Test…` are listed; an unparsable file has none."""
    assert list_tests(text.encode()) == names


def test_other_folders_are_not_suites() -> None:
    """Folders with an underscore, folders that the site excludes, and single files are not suites."""
    paths = ["tests/conftest.py", "tests/_generic/test_a.py", "tests/custom-html-red-bad/recipe_meta.py"]
    paths += ["tests/ghost/recipe_meta.py", "docs/ghost/recipe_meta.py"]
    tree = [TreeEntry(path, "blob", git_blob(b"")) for path in paths]
    assert list(suites_in(tree, "tests", other_folders=["custom-html-*-bad"])) == ["ghost"]


def test_nothing_is_proposed_without_a_template(world: SuiteWorld) -> None:
    """Without the template folder in cc-ci nothing is proposed, and the reason is given."""
    run = world.run({"ember": suite("ember")}, mode=Mode.PLAN)
    site = dataclasses.replace(
        run.context.site, ccci=dataclasses.replace(run.context.site.ccci, template="nobody")
    )
    context = dataclasses.replace(run.context, site=site, world=dataclasses.replace(run.context.world, site=site))
    with pytest.raises(Drift, match="template of all suites in tests/nobody/"):
        suites.demand_conformity(context, run.surveys, "ember", {})


def test_forge_serves_the_archive_of_a_commit(forge: ForgeUnderTest) -> None:
    """A tar.gz has the files byte for byte; an unknown commit answers 500."""
    files = {f"tests/ghost/{path}": text for path, text in suite("ghost").items()}
    remote = forge.new_repo(files)
    path = f"{remote.api}/archive/{remote.head()}.tar.gz"
    answer = forge.until(lambda: (got := forge.api().get(path)).status_code == 200 and got, "the archive")
    blobs = {name.removeprefix("tests/ghost/"): git_blob(text.encode()) for name, text in files.items()}
    (read,) = read_test_names({"ghost": Suite("ghost", blobs)}, "tests", answer.content).values()
    assert read.test_names == {"functional/test_front_page.py": ("test_front_page_answers",)}
    assert forge.api().get(f"{remote.api}/archive/{'0' * 40}.tar.gz").status_code == 500


def test_closed_proposal_can_be_reopened(forge: ForgeUnderTest) -> None:
    """A pull request closed by the deletion of its branch can be reopened after the branch is created again."""
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
