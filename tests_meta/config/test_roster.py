"""The roster: its nineteen recipes, and the sentence about each wrong entry."""

from __future__ import annotations

import dataclasses
import re
from datetime import date
from pathlib import Path

import pytest

from fixtures.config.roster import ROSTER_FILE, Deferred, KnownRed, Recipe, load_roster
from fixtures.errors import BadSetting
from tests_meta.config.site_files import assert_one_sentence

BEFORE = [
    "cc-ci",
    "custom-html",
    "custom-html-tiny",
    "keycloak",
    "cryptpad",
    "matrix-synapse",
    "lasuite-docs",
    "lasuite-meet",
    "n8n",
    "hedgedoc",
    "uptime-kuma",
]
APPENDED = [
    "bluesky-pds",
    "discourse",
    "ghost",
    "immich",
    "lasuite-drive",
    "mailu",
    "mattermost-lts",
    "mumble",
    "plausible",
]
GOOD = """\
recipes = [
  { name = "n8n", enroll = false },
  { name = "ghost", known_red = { reason = "restore", until = 2026-06-30 } },
]
canaries = ["ghost"]
deferred = [ { recipe = "n8n", item = "look again" } ]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "roster.toml"
    path.write_text(text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BadSetting) as caught:
        load_roster(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert_one_sentence(said)
    return said


def test_roster_lists_the_nineteen() -> None:
    """The roster holds the 19 recipes, 10 polled before and 9 newly enrolled, in the order of the poll set."""
    roster = load_roster()
    wanted = tuple(f"recipe-maintainers/{name}" for name in BEFORE + APPENDED)
    assert len(roster.recipes) == 19
    assert roster.poll_entries(org="recipe-maintainers", ccci_repository="recipe-maintainers/cc-ci") == wanted
    assert [recipe.name for recipe in roster.newly_enrolled] == APPENDED
    assert all(recipe.upstream == recipe.name for recipe in roster.recipes)


def test_canaries_and_known_red() -> None:
    """The canaries are the three of the real night; each is known red, with a reason and an expiry."""
    roster = load_roster()
    assert [recipe.name for recipe in roster.canaries] == ["ghost", "immich", "plausible"]
    reasons = {recipe.name: recipe.known_red.reason for recipe in roster.recipes if recipe.known_red}
    assert set(reasons) == {"ghost", "immich", "plausible"}
    assert "ci_marker" in reasons["ghost"]
    assert "ci_marker" in reasons["immich"]
    assert "ClickHouse" in reasons["plausible"]


def test_deferred_items() -> None:
    """The deferred work that the plan names waits for its recipe to be mirrored, covered and polled."""
    items = load_roster().deferred
    assert [item.recipe for item in items] == [
        "matrix-synapse", "ghost", "ghost", "discourse", "immich", "mattermost-lts", "plausible",
    ]  # fmt: skip
    assert {item.waits_for for item in items} == {("mirrored", "covered", "polled")}


def test_one_line_adds_a_recipe(tmp_path: Path) -> None:
    """A twentieth recipe is one more line, at the end of the poll set; nothing else changes."""
    text = ROSTER_FILE.read_text()
    head, end, tail = text.partition("\n]\n\n# The newly enrolled")
    assert end
    path = write(tmp_path, head + '\n  { name = "gitea" },' + end + tail)
    before, after = load_roster(), load_roster(path)
    assert after.recipes == (*before.recipes, Recipe(name="gitea", upstream="gitea", enroll=True))
    assert after.deferred == before.deferred


def test_every_recipe_is_one_line() -> None:
    """Each recipe stands on one line of its own."""
    lines = re.findall(r"^  \{ name = \"([a-z0-9-]+)\".* \},$", ROSTER_FILE.read_text(), flags=re.MULTILINE)
    assert tuple(lines) == load_roster().names


def test_defaults(tmp_path: Path) -> None:
    """Defaults: the same name upstream, newly enrolled, and all milestones before deferred work is released."""
    roster = load_roster(write(tmp_path, GOOD.replace("false", 'false, upstream = "n-8-n"')))
    known_red = KnownRed(reason="restore", until=date(2026, 6, 30))
    assert roster.recipes == (
        Recipe(name="n8n", upstream="n-8-n", enroll=False),
        Recipe(name="ghost", upstream="ghost", enroll=True, canary=True, known_red=known_red),
    )
    assert roster.deferred == (Deferred(recipe="n8n", item="look again"),)
    with pytest.raises(dataclasses.FrozenInstanceError):
        roster.recipes[0].name = "x"  # type: ignore[misc]


def test_known_red_expires() -> None:
    """A known failure is allowed through its last day and has expired on the day after."""
    known_red = KnownRed(reason="restore", until=date(2026, 6, 30))
    days = [date(2026, 6, 2), date(2026, 6, 30), date(2026, 7, 1)]
    assert [known_red.expired(on) for on in days] == [False, False, True]


BAD_NAMES = [
    "a/b", "../ghost", "..", ".", "", "a b", " ghost", "ghost ", "ghost\\n", "Ghost", "GHOST", "gh_ost", "-ghost",
    "ghost;id", "$(id)", "`id`", "ghost&", "ghost|id", "a*", "ghost'", "<b>ghost</b>", "ghost\\u0000", "ghöst",
    "g" * 64, "%2e%2e", "ghost.git", "\\u0661",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("field", ["name", "upstream"])
def test_bad_name(field: str, name: str, tmp_path: Path) -> None:
    """A recipe's name is small letters, digits and hyphens: it becomes a folder and a word of a command."""
    line = f'{{ name = "{name}" }}' if field == "name" else f'{{ name = "mumble", upstream = "{name}" }}'
    said = refusal(write(tmp_path, GOOD.replace("\n]\n", f"\n  {line},\n]\n", 1)))
    assert f": recipes[2].{field} must be a recipe name of at most 63 small letters" in said
    assert f', for example {field} = "ghost", but is ' in said


WRONG = [
    ("empty list", "recipes = []", "recipes must be a list of at least one recipe"),
    ("no recipes", "", "recipes is missing; expected is a list of at least one recipe"),
    ("table", "recipes = { }", "recipes must be a list"),
    ("texts", 'recipes = ["ghost"]', "recipes[0] must be a table"),
    ("no name", "recipes = [ { enroll = true } ]", "recipes[0].name is missing"),
    (
        "twice",
        'recipes = [ { name = "ghost" }, { name = "ghost" } ]',
        "recipes[1].name must be a recipe that is not",
    ),
    (
        "same upstream",
        'recipes = [ { name = "ghost" }, { name = "spectre", upstream = "ghost" } ]',
        "recipes[1].upstream must be a recipe that is not",
    ),
    (
        "enroll text",
        'recipes = [ { name = "ghost", enroll = "yes" } ]',
        "recipes[0].enroll must be true or false",
    ),
    (
        "order",
        'recipes = [ { name = "ghost" }, { name = "n8n", enroll = false } ]',
        "recipes[1].enroll must be true after a newly enrolled recipe",
    ),
    ("unknown", 'recipes = [ { name = "ghost", enrol = true } ]', "recipes[0].enrol is not a known key"),
    (
        "known_red text",
        'recipes = [ { name = "ghost", known_red = "yes" } ]',
        "recipes[0].known_red must be a table with reason and until",
    ),
    (
        "no expiry",
        'recipes = [ { name = "ghost", known_red = { reason = "x" } } ]',
        "recipes[0].known_red.until is missing",
    ),
    (
        "no reason",
        'recipes = [ { name = "ghost", known_red = { reason = " ", until = 2026-06-30 } } ]',
        "recipes[0].known_red.reason must be one line of text",
    ),
    (
        "expiry as text",
        'recipes = [ { name = "ghost", known_red = { reason = "x", until = "2026-06-30" } } ]',
        "recipes[0].known_red.until must be a date without quotes",
    ),
    (
        "expiry with time",
        'recipes = [ { name = "ghost", known_red = { reason = "x", until = 2026-06-30T00:00:00Z } } ]',
        "recipes[0].known_red.until must be a date without quotes",
    ),
]


@pytest.mark.parametrize(("recipes", "says"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_wrong_recipes(recipes: str, says: str, tmp_path: Path) -> None:
    """The message about wrong recipes is one sentence: file, key, expected value, example."""
    said = refusal(write(tmp_path, recipes + '\ncanaries = ["ghost"]\n'))
    assert f": {says}" in said
    assert "for example " in said


WRONG_REST = [
    ('canaries = ["mumble"]', "canaries[0] must be the name of a newly enrolled recipe of this roster"),
    ('canaries = ["n8n"]', "canaries[0] must be the name of a newly enrolled recipe of this roster"),
    (
        'canaries = ["ghost", "ghost"]',
        "canaries[1] must be an entry that is not in the list yet",
    ),
    ("canaries = []", "canaries must be a list of at least one newly enrolled recipe"),
    ("canaries = 3", "canaries must be a list"),
    ("", "canaries is missing; expected is a list of at least one newly enrolled recipe"),
    (
        'canaries = ["ghost"]\ndeferred = [ { recipe = "mumble", item = "x" } ]',
        "deferred[0].recipe must be a recipe",
    ),
    ('canaries = ["ghost"]\ndeferred = [ { recipe = "ghost" } ]', "deferred[0].item is missing"),
    (
        'canaries = ["ghost"]\ndeferred = [ { recipe = "ghost", item = "a\\nb" } ]',
        "deferred[0].item must be one line",
    ),
    (
        'canaries = ["ghost"]\ndeferred = [ { recipe = "ghost", item = "x", waits_for = ["green"] } ]',
        'deferred[0].waits_for[0] must be "mirrored", "covered" or "polled"',
    ),
    (
        'canaries = ["ghost"]\ndeferred = [ { recipe = "ghost", item = "x", waits_for = [] } ]',
        "deferred[0].waits_for must be a list of milestones",
    ),
    (
        'canaries = ["ghost"]\ndeferred = [ { recipe = "ghost", item = "x" }, { recipe = "ghost", item = "x" } ]',
        "deferred[1] must be an item that is not listed yet",
    ),
    ('canaries = ["ghost"]\ndeferred = 3', "deferred must be a list"),
    (
        'canaries = ["ghost"]\nrecipe = []',
        "recipe is not a known key; expected is a key of the file: did you mean",
    ),
]


@pytest.mark.parametrize(("rest", "says"), WRONG_REST)
def test_wrong_canaries_deferred_items_and_keys(rest: str, says: str, tmp_path: Path) -> None:
    """Wrong canaries, deferred items and keys are each one sentence."""
    said = refusal(write(tmp_path, GOOD.split("canaries")[0] + rest))
    assert f": {says}" in said
    assert "for example " in said


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    """Wrong values, and entries that contradict each other, get one sentence each."""
    text = GOOD.replace("false", "true").replace("\n]\n", '\n  { name = "n8n" },\n]\n', 1)
    text = text.replace('["ghost"]', '["ghost", "mumble"]').replace('"n8n", item', '"mailu", item')
    path = write(tmp_path, text + 'left_to_people = [ { recipe = "ghost", pull = 0, why = "x", who = "y" } ]\n')
    with pytest.raises(BadSetting) as caught:
        load_roster(path)
    assert [problem.removeprefix(f"{path}: ").split()[0] for problem in caught.value.problems] == [
        "left_to_people[0].who", "left_to_people[0].pull", "recipes[2].name", "canaries[1]", "deferred[0].recipe",
    ]  # fmt: skip
    for problem in caught.value.problems:
        assert ", for example " in problem
        assert_one_sentence(problem)


def test_unreadable_roster(tmp_path: Path) -> None:
    """A roster that is missing, a directory, not UTF-8 or not TOML is one sentence."""
    assert "there is no such file" in refusal(tmp_path / "roster.toml")
    assert "it is a directory" in refusal(tmp_path)
    assert "valid TOML" in refusal(write(tmp_path, "recipes = ["))
    (tmp_path / "roster.toml").write_bytes(b"\xff")
    assert "UTF-8" in refusal(tmp_path / "roster.toml")
