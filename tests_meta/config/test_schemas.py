"""The JSON schemas of the settings files: current, complete, and as strict as the reader where a schema can be."""

from __future__ import annotations

import json
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from fixtures.config import schemas
from fixtures.config.roster import ROSTER_FILE
from tests_meta.config.site_files import MINIMAL, WRONG, with_line

SITE, ROSTER = (json.loads(path.read_text()) for path in schemas.MODELS)
EXAMPLE = ROSTER_FILE.with_name("site.example.toml")
# Rules that no schema expresses: existing files, regular expressions, IPv6 addresses, sums of other keys, nan.
NO_RULE_OF_A_SCHEMA = re.compile(
    r"(ca|ssh_config|known_hosts|identity_file|watching_line|dead_man_s) =|nan|::::|\[127"
)


def errors(schema: dict[str, Any], text: str) -> list[str]:
    """The places of a TOML file that its schema refuses; a date counts as text, as editors pass it."""
    instance = json.loads(json.dumps(tomllib.loads(text), default=date.isoformat))
    return [
        ".".join(map(str, error.absolute_path)) for error in Draft202012Validator(schema).iter_errors(instance)
    ]


@pytest.mark.parametrize(("path", "model"), schemas.MODELS.items(), ids=lambda one: getattr(one, "name", ""))
def test_committed_schema_is_current(path: Path, model: type[Any]) -> None:
    """The file is the output of ``python -m fixtures.config.schemas``, and a valid schema."""
    assert path.read_text() == schemas.render(model), "run: python -m fixtures.config.schemas"
    Draft202012Validator.check_schema(json.loads(path.read_text()))


@pytest.mark.parametrize(("file", "schema"), [(EXAMPLE, SITE), (ROSTER_FILE, ROSTER)], ids=["site", "roster"])
def test_example_and_roster_are_valid(file: Path, schema: dict[str, Any]) -> None:
    """Both files name their schema in the first line, as a path from their own folder, and are valid by it."""
    directive, name = file.read_text().splitlines()[0].split()
    assert directive == "#:schema"
    assert json.loads((file.parent / name).read_text()) == schema
    assert errors(schema, file.read_text()) == []


def test_misspelled_key_is_refused() -> None:
    """Positive control: the same check refuses a misspelled key of each file, at its place."""
    assert errors(SITE, EXAMPLE.read_text().replace("machine_id =", "machineid =")) == ["host", "host"]
    misspelled = ROSTER_FILE.read_text().replace('{ name = "n8n"', '{ nmae = "n8n"')
    assert errors(ROSTER, misspelled) == ["recipes.7", "recipes.7"]
    assert errors(SITE, EXAMPLE.read_text().replace("[verdicts]", "[verdict]")) == [""]


@pytest.mark.parametrize(
    ("section", "line"),
    [case[:2] for case in WRONG if not NO_RULE_OF_A_SCHEMA.search(case[1])],
    ids=lambda one: one[:60],
)
def test_schema_refuses_what_the_reader_refuses(section: str, line: str) -> None:
    """A wrong value is refused at its key, so that an editor marks it before muster reads it."""
    place = ".".join(filter(None, (section, line.split("=")[0].strip())))
    assert errors(SITE, MINIMAL) == []
    found = errors(SITE, with_line(section, line))
    assert found
    assert all(one == place or one.startswith(f"{place}.") for one in found)


def test_secret_in_the_file_is_refused() -> None:
    """A secret is one of three references; a text, an empty table and two references at once are refused."""
    for value in ('{ env = "A" }', '{ file = "a" }', '{ command = ["pass", "show", "x"] }'):
        assert errors(SITE, with_line("forge", f"token = {value}")) == []
    for value in ('"0123456789abcdef"', "{ }", '{ env = "A", file = "b" }', '{ value = "A" }', '{ env = "a b" }'):
        assert errors(SITE, with_line("forge", f"token = {value}"))


def test_every_key_has_a_description() -> None:
    """An editor shows help for each key; a table has the help of its model."""
    for schema in (SITE, ROSTER):
        for table in schema["$defs"].values():
            assert table["description"]
            for name, key in table["properties"].items():
                is_table, is_source = key.get("$ref"), table["title"] == "A reference to a secret"
                assert key.get("description") or is_table or is_source, f"{table['title']}: {name}"
