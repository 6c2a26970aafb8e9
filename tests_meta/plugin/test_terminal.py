"""The console in terminals of several widths, on a pipe, without colour, and on a terminal that cannot erase."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from fixtures.run.console_text import Line, Style, fit, line, printable, width_of, wrap
from tests_meta import forked_runs
from tests_meta.muster_runs import PLUGINS_OFF, ROOT, WorldPool, environment
from tests_meta.plugin.terminal import COLOUR, Shown, run_in_terminal
from tests_meta.reports import sample_runs

WIDTHS = (50, 80, 120)
HOSTILE = "a\x1b[2J\x07\r\n\u202e\u2028 \x00" + "好" * 40
MODULE = '''
def test_before(): ...
def test_wait(wait):
    wait("the verdict of build 114 (hedgedoc)", "build 114 is running, and this state is long " + "x" * 80)
def test_short_wait(wait):
    wait("an answer", "nothing yet", ticks=0)
def test_hostile_wait(wait):
    wait("a build", %r)
def test_failed_wait(wait):
    import pytest
    with pytest.raises(KeyError):
        wait("a mirror", "empty", then=KeyError("x"))
def test_after(): ...
'''  # fmt: skip
SESSION = ("-p", "tests_meta.plugin.console_session", "-p", "no:cacheprovider", "-p", "no:muster")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A recorded run of each verdict."""
    return sample_runs.write_all(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test module with waits, in a folder of its own."""
    path = tmp_path_factory.mktemp("session") / "test_waits.py"
    path.write_text(MODULE % HOSTILE)
    return path


@pytest.fixture(scope="module")
def show(records: Mapping[str, Path], module: Path):  # type: ignore[no-untyped-def]  # returns the function below
    @cache
    def shown(state: str, columns: int, *env: tuple[str, str]) -> Shown:
        variables = {"MUSTER_CONSOLE_RECORD": str(records[state])} | dict(env)
        return run_in_terminal([*SESSION, str(module)], columns=columns, env=variables)

    return shown


def on_a_pipe(module: Path, record: Path) -> str:
    status, output = forked_runs.run(
        [*PLUGINS_OFF, *SESSION, str(module)],
        cwd=ROOT,
        env=environment(MUSTER_CONSOLE_RECORD=str(record)),
        limit_s=60,
    )
    assert status == 0, output
    return output


@pytest.mark.parametrize("columns", WIDTHS)
def test_live_line_stays_on_one_row_and_is_erased(show, columns: int) -> None:  # type: ignore[no-untyped-def]
    """It is redrawn in place, narrower than the terminal, and no row of it is left, also after an error."""
    shown = show("converged", columns)
    assert shown.exit == 0, shown.text
    assert len(shown.redrawn) >= 6
    assert any("the verdict of build 114" in text for text in shown.redrawn)
    assert any("a mirror" in text for text in shown.redrawn), "the failed wait was not shown"
    assert max(width_of(text) for text in shown.redrawn) < columns
    assert not [row for row in shown.rows if row.startswith("  … ")]
    assert any("a\\x1b[2J" in text for text in shown.redrawn), "the hostile state was not shown"
    assert b"\x1b[2J" not in shown.raw
    assert len([row for row in shown.rows if "for the verdict of build 114" in row]) == 1


def test_results_continue_after_a_message(show) -> None:  # type: ignore[no-untyped-def]
    """The module's path stands before the results that follow a message, and no result stands alone on a row."""
    rows = show("converged", 80).rows
    assert sum(bool(re.match(r"\S*test_waits\.py \.+( |$)", row)) for row in rows) >= 2
    assert not [row for row in rows if re.fullmatch(r"\.+( +\[.*\])?", row)]


def test_pipe_gets_one_line_for_a_wait(module: Path, records: Mapping[str, Path]) -> None:
    """A pipe gets no control sequence, one line for each wait, and lines that are not wrapped."""
    output = on_a_pipe(module, records["planned"])
    assert "\x1b" not in output
    assert "\r" not in output
    assert len(re.findall("build 114", output)) == 1
    assert re.search(r"^  ~ enroll .{120,}$", output, re.M)


def test_dumb_terminal_gets_one_line_for_a_wait(show) -> None:  # type: ignore[no-untyped-def]
    """With TERM=dumb nothing is redrawn and nothing is coloured, and the wait is still reported."""
    shown = show("converged", 80, ("TERM", "dumb"))
    assert b"\x1b" not in shown.raw
    assert len([row for row in shown.rows if "for the verdict of build 114" in row]) == 1


def test_no_color_removes_the_colours_only(show) -> None:  # type: ignore[no-untyped-def]
    """With NO_COLOR the rows are the same and none is coloured; without it they are coloured (positive control)."""
    plain, coloured = show("planned", 80, ("NO_COLOR", "1")), show("planned", 80)
    assert COLOUR.search(coloured.raw)
    assert not COLOUR.search(plain.raw)

    def summary(shown: Shown) -> str:
        return shown.text[shown.text.index("PLANNED") :].partition("passed in")[0]

    assert summary(plain).split("===")[0] == summary(coloured).split("===")[0]


@pytest.mark.parametrize("columns", WIDTHS)
def test_plan_shows_its_steps_by_phase(show, columns: int) -> None:  # type: ignore[no-untyped-def]
    """Each phase has its steps with their symbols, the diff is below the enrollment, and the totals are last."""
    shown = show("planned", columns)
    text = shown.text
    order = ["+ create  ~ change", "phase 1, mirrors", "  + create ", "phase 3, enrollment", "  ~ enroll", "--- a/",
             "+++ b/", "phase 4, deploy", "no change: mirrors", "Plan: "]  # fmt: skip
    places = [text.index(words) for words in order]
    assert places == sorted(places), text
    assert re.search(r"Plan: 3 to create, .*1 to\s+enroll, .*2 mirrors\s+unchanged", text, re.S)
    assert b"\x1b[32m+\x1b[0m create" in shown.raw
    assert b"\x1b[33m~\x1b[0m enroll" in shown.raw


@pytest.mark.parametrize("state", sample_runs.STATES)
def test_summary_has_verdict_counts_and_status_line(show, state: str) -> None:  # type: ignore[no-untyped-def]
    """Verdict, counts and last line are there for each verdict, and the colour is green only where nobody is needed."""
    shown = show(state, 80)
    assert shown.exit == 0, shown.text
    word = f"{state.upper()}  "
    assert any(row.startswith(word) for row in shown.rows), shown.text
    assert re.search(r"^mirrored (\d+/19|unknown)  covered", shown.text, re.M)
    assert re.search(r"^muster: [A-Z-]+ ", shown.text, re.M)
    assert ("\nRegressions\n  ! " in shown.text) is (state in ("rolled-back", "rollback-failed"))
    green = f"\x1b[32m{state.upper()}".encode() in shown.raw
    assert green is (state in ("converged", "unchanged", "recovered"))
    recovered = "enroll nix/modules/bridge.nix: undone (it was not complete)" in shown.text
    assert recovered is (state == "recovered"), "a recovery lists what it recovered"


def test_plan_of_a_world_in_a_terminal(night: WorldPool, tmp_path: Path) -> None:
    """A whole run prints its plan, its diff and its last line in a terminal of 80 columns, no row of it cut."""
    words = ["phases/", "--site", str(night.site), "--roster", str(night.roster), "--plan"]
    shown = run_in_terminal([*words, "--reports", str(tmp_path), "-o", f"cache_dir={tmp_path}/cache"], columns=80)
    assert shown.exit == 10, shown.text
    totals = "Plan: 3 to create, 3 to move forward, 1 to propose and merge, 1 to enroll, "
    assert totals in " ".join(shown.rows)
    assert '+        "POLL_REPOS=' in shown.text
    assert re.search(r"^muster: PENDING 10/19 mirrored", shown.text, re.M)
    assert not shown.redrawn


# -- text ----------------------------------------------------------------------------------------------------


def test_printable_escapes_what_controls_a_terminal() -> None:
    """Control characters, line ends and marks of direction become visible; letters of any script stay."""
    assert printable("a\x1b[2J\x00\u202eb\nc\rd é 好") == "a\\x1b[2J\\x00\\u202eb c\\rd é 好"
    assert len(printable("x" * 1_000_000)) < 5000


def test_fit_counts_columns_and_not_characters() -> None:
    """A wide character takes two columns, a combining one none, and a cut text ends with an ellipsis."""
    assert fit("好好好", 6) == "好好好"
    assert fit("好好好", 5) == "好好…"
    assert fit("e\u0301e\u0301", 2) == "e\u0301e\u0301"
    assert width_of(fit("好" * 50, 21)) == 21


@pytest.mark.parametrize("columns", [20, 33, 50, 80])
def test_wrap_keeps_the_text_and_the_width(columns: int) -> None:
    """No row is wider than the terminal, nothing but spaces is lost, and each piece keeps its style."""
    whole = line(
        "  ", ("+", Style.GOOD), " create recipe-maintainers/lasuite-drive: " + "好x" * 30 + " and tags", hang=6
    )
    rows = wrap(whole, columns)
    assert len(rows) > 1
    assert max(width_of(row.text) for row in rows) <= columns
    assert "".join(row.text for row in rows).replace(" ", "") == whole.text.replace(" ", "")
    assert ("+", Style.GOOD) in rows[0].pieces
    assert all(row.text.startswith("      ") for row in rows[1:])
    assert wrap(Line(()), columns) == [Line(())]
    command = line("      git ls-remote https://forge.example.org/" + "x" * columns, to_copy=True)
    assert wrap(command, columns) == [command]
