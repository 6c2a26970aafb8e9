"""A selection of tests runs the gates of its phases or fails; a run that checks nothing never exits with 0.

Listings show the selected tests; where the result matters, the selection is run against a running world.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fixtures.journal.past_runs import latest_finished
from tests_meta.muster_runs import ROOT, Ran, WorldPool, files_below, listed, muster, phases_of

MODULES = [f"phases/{path.name}" for path in sorted((ROOT / "phases").glob("test_*.py"))]
SINGLE_TEST = "phases/test_4_deploy.py::test_the_bridge_runs"


def gates_in(nodeids: Sequence[str]) -> list[int]:
    """The phases whose last test in this list is the gate."""
    numbers = phases_of(nodeids)
    last = dict(zip(numbers, nodeids, strict=True))
    return [number for number, nodeid in last.items() if nodeid.endswith("::test_gate")]


@pytest.fixture(scope="module")
def everything() -> list[str]:
    return listed()


# -- listings ---------------------------------------------------------------------------------------------


def test_seven_phases_run_in_order_with_the_gate_last(everything: list[str]) -> None:
    """There are several hundred assertions; those about recipes exist once per recipe."""
    assert phases_of(everything) == sorted(phases_of(everything))
    assert gates_in(everything) == list(range(7))
    assert len(everything) > 300
    assert len([nodeid for nodeid in everything if "[mumble]" in nodeid]) > 10


@pytest.mark.parametrize("module", [MODULES[0], MODULES[3], MODULES[6]])
def test_single_file_selects_the_phases_before_it(everything: list[str], module: str) -> None:
    """All earlier phases are selected completely and in order, and no later phase."""
    number = MODULES.index(module)
    assert listed(phases=[module]) == [nodeid for nodeid in everything if phases_of([nodeid])[0] <= number]


def test_single_test_selects_the_phases_before_it(everything: list[str]) -> None:
    """All earlier phases are selected completely; of its own phase only the test itself."""
    before = [nodeid for nodeid in everything if phases_of([nodeid])[0] < 4]
    assert listed(phases=[SINGLE_TEST]) == [*before, SINGLE_TEST]


@pytest.mark.parametrize("words", ["bridge", "mumble and tags", "not gate"])
def test_keyword_selects_the_phases_before_the_last_match(everything: list[str], words: str) -> None:
    """Gates are selected even if the keyword excludes them."""
    found = listed("-k", words)
    last = max(phases_of(found))
    assert gates_in(found) == list(range(last + 1))
    before = [nodeid for nodeid in everything if phases_of([nodeid])[0] < last]
    assert found[: len(before)] == before


def test_order_of_files_does_not_change_the_order_of_phases(everything: list[str]) -> None:
    """Phases run in numerical order, whatever the order on the command line."""
    assert listed(phases=list(reversed(MODULES))) == everything


def test_deselected_test_of_an_earlier_phase_is_restored(everything: list[str]) -> None:
    """Neither a gate nor a file that a later phase requires can be deselected."""
    assert listed("--deselect", MODULES[0], "--deselect", f"{MODULES[2]}::test_gate") == everything


def test_run_can_start_in_any_folder(everything: list[str], tmp_path: Path) -> None:
    """The full path of the phases suffices, because cron does not change the folder."""
    ran = muster(
        "--collect-only",
        "-q",
        "-c",
        str(ROOT / "pyproject.toml"),
        phases=[str(ROOT / "phases")],
        cwd=tmp_path,
    )
    assert len([line for line in ran.demand(0).output.splitlines() if "::" in line]) == len(everything)


def test_listing_writes_and_contacts_nothing(tmp_path: Path) -> None:
    """A listing creates neither a record nor a world."""
    ran = muster("--collect-only", "--world", str(tmp_path / "world"), reports=tmp_path / "reports").demand(0)
    assert "collected" in ran.output
    assert list(tmp_path.iterdir()) == []


# -- the table of all selections and switches -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to run pytest, and how it ends.

    `refused`: exit, and a part of the one sentence; no world is contacted and no record written. `last`: exit, and the
    beginning of the last line of a run against the converged world.
    """

    arguments: tuple[str, ...] = ("phases/", "--health")
    env: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[int, str] | None = None
    last: tuple[int, str] | None = None
    says: str = ""


def health(*arguments: str, **row: Any) -> Row:
    return Row(arguments=("phases/", "--health", *arguments), **row)


def with_plugin(loses: str, **row: Any) -> Row:
    return Row(env={"PYTEST_PLUGINS": "tests_meta.run.losing_plugin", "MUSTER_LOSES": loses}, **row)


LISTS = "only lists and checks nothing"
ORDER = "would leave out phases that others depend on"
CALLS_NOTHING = "calls no test"
SETTINGS = "the phases run with the settings in"
LOST = "1 test of the phases checked nothing: test_it_is_covered[ghost]."
WHOLE = "muster: OK 19/19 mirrored, covered and polled; "
PREFLIGHT = "muster: PARTIAL 1 of 7 phases checked completely; "
NOTHING = "muster: PARTIAL 0 of 7 phases checked completely; "
LAST_MODULE = "phases/test_6_resume.py"

TABLE: dict[str, Row] = {
    # Nothing is selected: pytest's own exit code.
    "keyword without a match": health("-k", "no_such_thing", refused=(5, "deselected")),
    "mark without a match": health("-m", "no_such_mark", refused=(5, "deselected")),
    "everything deselected": health("--deselect", "phases/", refused=(5, "deselected")),
    "everything ignored": health("--ignore-glob", "*.py", refused=(5, "no tests")),
    "no function is a test": health("-o", "python_functions=nothing", refused=(5, "no tests")),
    "no file is a test": health("-o", "python_files=nothing", refused=(5, "no tests")),
    "folder without tests": Row(arguments=("reports/", "--health"), refused=(5, "no tests")),
    "folder that does not exist": Row(arguments=("phase/", "--health"), refused=(4, "not found")),
    "test that does not exist": Row(arguments=(f"{LAST_MODULE}::test_x", "--health"), refused=(4, "not found")),
    # Listings beside a mode or a site.
    "--collect-only": health("--collect-only", refused=(4, LISTS)),
    "--co of a real site": Row(arguments=("phases/", "--co", "--site", "site.toml"), refused=(4, LISTS)),
    "--co in PYTEST_ADDOPTS": Row(env={"PYTEST_ADDOPTS": "--co"}, refused=(4, LISTS)),
    "--co of MUSTER_SITE": Row(
        arguments=("phases/", "--co"), env={"MUSTER_SITE": "site.toml"}, refused=(4, LISTS)
    ),
    "--fixtures": health("--fixtures", refused=(4, LISTS)),
    "--fixtures-per-test": health("--fixtures-per-test", refused=(4, LISTS)),
    "--cache-show": health("--cache-show", refused=(4, LISTS)),
    "--markers": health("--site", "site.toml", "--markers", refused=(4, LISTS)),
    "--markers of MUSTER_SITE": Row(
        arguments=("phases/", "--markers"), env={"MUSTER_SITE": "site.toml"}, refused=(4, LISTS)
    ),
    "--fault list": health("--site", "site.toml", "--fault", "list", refused=(4, LISTS)),
    "--help": health("--site", "site.toml", "--help", refused=(4, LISTS)),
    "--help before the mode": Row(arguments=("phases/", "--help", "--health"), refused=(4, LISTS)),
    "--version twice": health("--site", "site.toml", "--version", "--version", refused=(4, LISTS)),
    # pytest answers a single --version before it reads a conftest; nothing in its line can be taken for a verdict.
    "--version": health("--site", "site.toml", "--version", refused=(0, "pytest ")),
    # Sites and rosters that are none.
    "empty --site": Row(arguments=("phases/", "--site", ""), refused=(4, "must name a site file")),
    "empty MUSTER_SITE": Row(
        arguments=("phases/",), env={"MUSTER_SITE": ""}, refused=(4, "must name a site file")
    ),
    "site that does not exist": Row(arguments=("phases/", "--site", "nowhere.toml"), refused=(4, "nowhere.toml")),
    "roster that does not exist": health("--roster", "nowhere.toml", refused=(4, "nowhere.toml")),
    # The order of the phases.
    "-n": health("-n2", refused=(4, "one after the other")),
    "--dist": health("--dist", "each", "--tx", "2*popen", refused=(4, "one after the other")),
    "--lf": health("--lf", refused=(4, ORDER)),
    "--ff": health("--ff", refused=(4, ORDER)),
    "--nf": health("--nf", refused=(4, ORDER)),
    "--sw": health("--sw", refused=(4, ORDER)),
    "--lf in PYTEST_ADDOPTS": Row(env={"PYTEST_ADDOPTS": "--lf"}, refused=(4, ORDER)),
    "--ignore-unknown-dependency": health("--ignore-unknown-dependency", refused=(4, ORDER)),
    # No test is called.
    "--setup-only": health("--setup-only", refused=(4, CALLS_NOTHING)),
    "--setup-plan": health("--setup-plan", refused=(4, CALLS_NOTHING)),
    "python -O": Row(env={"PYTHONOPTIMIZE": "1"}, refused=(4, "removes assertions")),
    # Plugins that are off.
    "-p no:dependency": health("-p", "no:dependency", refused=(4, "do not wait for each other")),
    "-p no:html": health("-p", "no:html", refused=(4, "report.html")),
    "-p no:junitxml": health("-p", "no:junitxml", refused=(4, "junit.xml")),
    "-p no:muster": health("-p", "no:muster", refused=(4, "muster's own plugin")),
    "-p no:python": health("-p", "no:python", refused=(4, "no test is found")),
    "-p no:skipping": health("-p", "no:skipping", refused=(4, "counts as failed")),
    "-p no:terminal": health("-p", "no:terminal", refused=(4, "error")),
    "no plugin is loaded": Row(env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, refused=(4, "do not wait")),
    "plugin that does not exist": Row(env={"PYTEST_PLUGINS": "no_such_plugin"}, refused=(4, "no_such_plugin")),
    # Settings and conftest files.
    "--noconftest": health("--noconftest", refused=(4, "unrecognized arguments")),
    "-c": health("-c", "reports/pytest.ini", refused=(4, "pytest.ini")),
    "-c /dev/null": health("-c", "/dev/null", refused=(4, SETTINGS)),
    "--rootdir": health("--rootdir", "/tmp", refused=(4, SETTINGS)),
    "--pyargs": Row(
        arguments=("--pyargs", "phases.test_0_preflight", "--health"), refused=(4, "named by their folder")
    ),
    # A part that was selected: it runs the gates that it needs, and is named partial.
    "-k": health("-k", "preflight", last=(0, PREFLIGHT)),
    "-k of a test": health("-k", "forge_answers", last=(0, NOTHING)),
    "-k in PYTEST_ADDOPTS": Row(env={"PYTEST_ADDOPTS": "-k forge_answers"}, last=(0, NOTHING)),
    "-m": health("-m", "system", last=(0, PREFLIGHT)),
    "file": Row(arguments=(MODULES[0], "--health"), last=(0, PREFLIGHT)),
    "@file": Row(arguments=("@selection.txt",), last=(0, PREFLIGHT)),
    "one parameter of a test": Row(
        arguments=(f"{MODULES[0]}::test_upstream_has_the_recipe[ghost]", "--health"), last=(0, NOTHING)
    ),
    "-k with --plan": Row(arguments=("phases/", "--plan", "-k", "preflight"), last=(0, PREFLIGHT)),
    "-k that selects everything": health("-k", "test", last=(0, WHOLE)),
    # A part of phases/ as a whole is lost.
    "--deselect of a phase": health(
        "--deselect", LAST_MODULE, last=(1, "muster: FAILED 6 of 7 phases"), says="Nothing was checked in phase 6"
    ),
    "--deselect of a test": health(
        "--deselect",
        f"{LAST_MODULE}::test_pull_requests_left_to_people_are_untouched",
        last=(1, "muster: FAILED 6 of 7 phases"),
        says="checked nothing: test_pull_requests_left_to_people_are_untouched.",
    ),
    "--ignore of a phase": health("--ignore", MODULES[0], last=(1, "muster: FAILED 6 of 7 phases")),
    "names of tests": health(
        "-o",
        "python_functions=test_gate test_the_*",
        last=(1, "muster: FAILED 0 of 7 phases"),
    ),
    "PYTEST_PLUGINS, removed": with_plugin("removed", last=(0, WHOLE)),  # it is restored
    "PYTEST_PLUGINS, skipped": with_plugin("skipped", last=(1, "muster: FAILED 6 of 7 phases"), says=LOST),
    "PYTEST_PLUGINS, xfail": with_plugin("expected to fail", last=(1, "muster: FAILED 6 of 7 phases"), says=LOST),
    "PYTEST_PLUGINS, not called": with_plugin("not called", last=(1, "muster: FAILED 6 of 7 phases"), says=LOST),
    # Nothing is lost.
    "no selection": health(last=(0, WHOLE)),
    "-x without a failure": health("-x", last=(0, WHOLE)),
    "--maxfail without a failure": health("--maxfail", "1", last=(0, WHOLE)),
    "--pdb without a failure": health("--pdb", last=(0, WHOLE)),
    "--import-mode": health("--import-mode", "importlib", last=(0, WHOLE)),
    "-p no:cacheprovider": health("-p", "no:cacheprovider", last=(0, WHOLE)),
    "all files in reverse order": Row(arguments=(*reversed(MODULES), "--health"), last=(0, WHOLE)),
}


@pytest.mark.parametrize("how", [how for how, row in TABLE.items() if row.refused])
def test_run_that_would_check_nothing_is_refused(how: str, tmp_path: Path) -> None:
    """It ends with pytest's exit code and a sentence, starts no world, and leaves no record."""
    row = TABLE[how]
    assert row.refused
    ran = muster(phases=row.arguments, env=row.env, reports=tmp_path / "reports")
    assert ran.exit == row.refused[0], ran.output[-3000:]
    assert row.refused[1] in ran.output
    assert "muster: OK" not in ran.output
    assert "Traceback" not in ran.output
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("how", [how for how, row in TABLE.items() if row.last])
def test_run_says_how_much_it_checked(
    converged: WorldPool, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line and summary.json name a partial run as partial, and only a whole run counts as a night."""
    row = TABLE[how]
    assert row.last
    status, beginning = row.last
    selection = tmp_path / "selection.txt"
    selection.write_text("phases/\n--health\n-k\npreflight\n")
    arguments = [str(selection).join(("@", "")) if one == "@selection.txt" else one for one in row.arguments]
    ran = converged.visit(phases=arguments, env=row.env, reports=tmp_path / "reports").demand(status)
    assert ran.output.rstrip().splitlines()[-1].startswith(beginning)
    is_whole = beginning == WHOLE
    scope = ran.summary["scope"]
    assert (scope["whole"], len(scope["complete"])) == (
        is_whole,
        int(beginning.split()[2][0]) if not is_whole else 7,
    )
    assert (ran.summary["verdict"] == "partial") == (status == 0 and not is_whole)
    assert (latest_finished(ran.reports, site="rehearsal") is not None) == is_whole
    if row.says:
        assert any(row.says in one["what"] for one in ran.summary["findings"]), ran.summary["findings"]


# -- runs ---------------------------------------------------------------------------------------------------


def phases_run(ran: Ran) -> dict[int, int]:
    """How many assertions passed, by phase."""
    return {phase["phase"]: phase["passed"] for phase in ran.summary["phases"]}


def test_single_test_runs_the_earlier_gates(converged: WorldPool) -> None:
    """On a healthy world it runs phases 0 to 3 completely and then the test; exit 0, and no later phase runs."""
    passed = phases_run(converged.visit("--health", phases=[SINGLE_TEST]).demand(0))
    assert list(passed) == [0, 1, 2, 3, 4]
    assert all(passed.values())
    assert passed[4] == 1


def test_selection_fails_when_an_earlier_phase_fails(converged: WorldPool) -> None:
    """When phase 0 cannot read the organisation, the selected test is skipped and the run exits with 1."""
    with converged.breaking({"listener": "forge", "path": "^/api/v1/orgs/", "action": "status:404"}):
        ran = converged.visit("--health", phases=[SINGLE_TEST]).demand(1)
    assert "the organisation can be read" in ran.failed
    skipped = {line["title"]: line["message"] for line in ran.of("assertion") if line["outcome"] == "skipped"}
    assert skipped["the bridge runs"].startswith("waits for phase 0: ")


@pytest.mark.parametrize("stop", [("-x",), ("--maxfail", "1"), ("--pdb",)], ids=lambda stop: stop[0])
def test_run_stopped_at_the_first_failure_fails(converged: WorldPool, stop: tuple[str, ...]) -> None:
    """Tests that did not run do not count as passed, whether pytest or a person in its debugger ended the run."""
    with converged.breaking({"listener": "upstream", "path": "/mumble.git/", "action": "status:404"}):
        ran = converged.visit("--health", *stop)
    assert ran.exit not in (0, 10)
    assert "upstream has the recipe: mumble" in ran.failed
    assert len(ran.failed) == 1
    ended = "muster: INTERRUPTED " if stop == ("--pdb",) else "muster: FAILED 0 of 7 phases checked completely; "
    assert ran.output.rstrip().splitlines()[-1].startswith(ended)
    assert latest_finished(ran.reports, site="rehearsal") is None


PARENT_CONFTEST = """
def pytest_collection_modifyitems(items):
    items[:] = items[:1]
"""


@pytest.mark.parametrize(
    ("arguments", "status", "beginning"),
    [((), 0, WHOLE), (("--confcutdir", ".."), 1, "muster: FAILED ")],
    ids=["usual", "--confcutdir"],
)
def test_files_of_a_parent_folder_leave_nothing_out(
    converged: WorldPool, tmp_path: Path, arguments: tuple[str, ...], status: int, beginning: str
) -> None:
    """Settings above the project are not read, and what a conftest there removes is restored or fails the run."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -k nothing\npython_files = x_*.py\n")
    (tmp_path / "conftest.py").write_text(PARENT_CONFTEST)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("phases", "fixtures", "reports"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout / name)
    ran = converged.visit("--health", *arguments, cwd=checkout).demand(status)
    assert ran.output.rstrip().splitlines()[-1].startswith(beginning)
