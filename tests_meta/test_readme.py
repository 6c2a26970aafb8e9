"""README and the pages beside the code: what they name exists, and the example is what a rehearsal prints."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fixtures.journal.load_record import load
from fixtures.journal.status_line import status_line
from fixtures.plugin.commands import build_parser
from fixtures.rollback.exits import Exit
from tests_meta.muster_runs import ROOT
from tests_meta.reference_night import ReferenceNight

README = ROOT / "README.md"
PAGES = sorted(
    page
    for folder in ("fixtures", "reports")
    for page in (ROOT / folder).rglob("README.md")
    if "ccci" not in page.parts
)
LONGEST = 200


def options_of(text: str) -> set[str]:
    """The long options in the commands of a page."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


def test_readme_is_read_in_three_minutes() -> None:
    """It has at most 200 lines and every part that a newcomer looks for."""
    text = README.read_text()
    assert len(text.splitlines()) <= LONGEST
    headings = re.findall(r"^## (.+)$", text, re.M)
    wanted = [
        "See it work",
        "Your site in five steps",
        "Exits",
        "Troubleshooting",
        "Glossary",
        "Where things are",
    ]
    assert [heading for heading in headings if heading in wanted] == wanted
    for number in (11, 12, 13):
        assert f"**Exit {number}: now what?**" in text


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    """Every relative link exists."""
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert links or page != README
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    "page", [README, ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_of_a_page_work_in_a_fresh_shell(page: Path) -> None:
    """Every command names ``python`` and ``pytest`` by ``.venv/bin/``: a fresh Debian has neither."""
    bare = r"^(?:python|pytest)\b.*|`(?:python|pytest) (?!phases/`)[^`]*`"
    assert re.findall(bare, page.read_text(), re.M) == []
    assert re.findall(bare, "python -m reports latest\nwith `pytest -s x`", re.M) != []


def test_paths_in_readme_exist() -> None:
    """Every path below the checkout that README names exists."""
    named = re.findall(r"`((?:fixtures|phases|reports|tests_meta)/[\w./-]*)`", README.read_text())
    made_by_runs = [path for path in named if path.startswith("reports/latest")]
    assert made_by_runs, "the path of the report is not named"
    assert [path for path in named if path not in made_by_runs and not (ROOT / path).exists()] == []


def test_options_in_the_pages_exist() -> None:
    """Every option is muster's, or of one of the other programs that a page names."""
    parser = build_parser()
    own = {option for below in parser._subparsers._group_actions[0].choices.values()  # type: ignore[union-attr]
           for option in below._option_string_actions}  # fmt: skip
    others = {"--dist", "--all", "--max", "--days", "--evaluate", "--apply", "--app-url", "--detach"}
    found = {option for page in (README, *PAGES) for option in options_of(page.read_text())}
    assert {"--plan", "--health", "--fault"} <= found
    assert found - own - others == set()


def test_commands_in_readme_run_in_a_fresh_shell() -> None:
    """Debian has no ``python`` and no ``pytest`` on its path: each command names them in the environment."""
    blocks = re.findall(r"^```\n(.*?)^```", README.read_text(), re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    assert any(line.startswith(".venv/bin/pytest phases/") for line in lines)
    assert [line for line in lines if re.match(r"(pytest|python|pip|muster) ", line)] == []


def test_site_file_is_not_committed_by_accident() -> None:
    """git ignores the site.toml that README says to make; the example is not ignored (positive control)."""

    def ignored(path: str) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0

    assert ignored("site.toml")
    assert not ignored("fixtures/config/site.example.toml")


def test_exits_in_readme_are_those_of_the_code() -> None:
    """The table has a row for each exit code of muster."""
    rows = re.findall(r"^\| (\d+)(?: to (\d+))? \|", README.read_text(), re.M)
    told = {code for low, high in rows for code in range(int(low), int(high or low) + 1)}
    assert told == {int(code) for code in Exit} | set(range(7))


def test_example_in_readme_is_what_a_rehearsal_prints(reference_night: ReferenceNight) -> None:
    """The numbers of the example (recipes, changes, verdicts) are those of an apply in the world of 2026-06-02."""
    folder = reference_night.applied.ran.folder
    assert folder is not None
    (shown,) = re.findall(r"^muster: OK .*$", README.read_text(), re.M)
    printed = status_line(load(folder))

    def numbers(line: str) -> str:
        return line.rpartition(", ")[0]

    assert numbers(shown) == numbers(printed)
    undone = sum(change["undone"] is not False for change in reference_night.applied.ran.summary["changes"])
    total = len(reference_night.applied.ran.summary["changes"])
    assert f"{total} changes, {undone} of them undone" in README.read_text()
    assert f"{total} changes, {undone} of them undone" in reference_night.applied.ran.output
