"""The comparison of a suite with cc-ci's template before it is proposed: files, keys, fixtures, imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.ccci.suites import load_payload_suites
from fixtures.config.site import Ccci
from fixtures.rehearsal.initial_state import night
from fixtures.suites.conformity import Template, differences, template_of
from tests_meta.suites.suite_world import GOOD, PAYLOAD, suite

CCCI = Path(__file__).parents[2] / "fixtures" / "rehearsal" / "initial_state" / "ccci" / "tests"


def folder(recipe: str) -> dict[str, bytes]:
    found = (path for path in (CCCI / recipe).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(CCCI / recipe).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def template() -> Template:
    """The suite of uptime-kuma below cc-ci's conftest, as of 2026-06-02."""
    files = folder("uptime-kuma")
    conftest = (CCCI / "conftest.py").read_bytes()
    return template_of("uptime-kuma", parts=files, suite=files, conftests=[conftest], keys=Ccci().suite_keys)


def found(template: Template, layout: str = "functional", **changes: str) -> list[str]:
    files = {path: text.encode() for path, text in suite("x", **changes).items()}
    return differences(files, template, layout=layout)


def test_shipped_hedgedoc_suite_conforms(template: Template) -> None:
    """The suite shipped for hedgedoc has no differences from the template."""
    carried = load_payload_suites(PAYLOAD)["hedgedoc"]
    assert differences(carried, template, layout="functional") == []


@pytest.mark.parametrize("recipe", [name for name in night.RECIPES if name != "hedgedoc"])
def test_every_suite_of_cc_ci_conforms(template: Template, recipe: str) -> None:
    """No existing suite of cc-ci differs from the template."""
    assert differences(folder(recipe), template, layout="functional") == []


MARKED = "import pytest\n\n\n@pytest.mark.usefixtures('page')\ndef test_it():\n    pass\n"
CALLABLE = "import os\nHEALTH_PATH = '/'\n_LOCAL = 1\n\n\ndef EXTRA_ENV(domain):\n    return {}\n"
FIXTURE = "import pytest\n\n\n@pytest.fixture(name='guest')\ndef _guest(live_app):\n    return live_app\n"
LOST = FIXTURE.replace("live_app", "nobody")
PARAMETERS = """import pytest

pytestmark = pytest.mark.usefixtures("live_app")


@pytest.mark.parametrize(("path", "status"), [("/", 200)])
@pytest.mark.parametrize("method", ["GET"])
def test_it(tmp_path, path, status, method, retries=3, *, pause=1):
    assert path


class TestMore:
    def test_more(self, live_app):
        assert live_app
"""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"functional__test_more_py": PARAMETERS},
        {"functional__test_more_py": FIXTURE + "\n\ndef test_it(guest):\n    assert guest\n"},
        {"functional__x_client_py": "import json\n", "functional__test_more_py": "import x_client\n" + GOOD},
        {"recipe_meta_py": CALLABLE},
        {
            "ops_py": "def pre_backup(app):\n    pass\n",
            "test_backup_py": "def test_it(backed_up):\n    pass\n",
        },
    ],
)
def test_allowed_variation_is_no_difference(template: Template, changes: dict[str, str]) -> None:
    """Own fixtures and those of cc-ci and pytest, parameters, defaults, hooks and private names are allowed."""
    assert found(template, **changes) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"recipe_meta_py": "HEALHT_PATH = '/'\n"},
            "recipe_meta.py sets HEALHT_PATH, which cc-ci does not know",
        ),
        ({"recipe_meta_py": "if True:\n    HEALTH: str = '/'\n"}, "recipe_meta.py sets HEALTH,"),
        ({"recipe_meta_py": "def READY():\n    pass\n"}, "recipe_meta.py sets READY,"),
        ({"functional__test_b_py": "def test_it(page):\n    pass\n"}, "test_it asks for the fixture page"),
        ({"functional__test_b_py": MARKED}, "test_it asks for the fixture page"),
        (
            {"functional__test_b_py": LOST + "\ndef test_it(guest): ...\n"},
            "_guest asks for the fixture nobody",
        ),
        ({"functional__test_b_py": "import httpx\n" + GOOD}, "functional/test_b.py imports httpx"),
        ({"functional__test_b_py": "def test_it():\n    import requests\n"}, "imports requests"),
        ({"functional__test_b_py": "import distutils\n" + GOOD}, "imports distutils"),
        ({"functional__test_b_py": "from .client import x\n" + GOOD}, "imports .client: a relative import"),
        ({"functional__test_b_py": "X = 1\n"}, "functional/test_b.py holds no test"),
        (
            {"functional__test_b_py": "def test_it(:\n"},
            "functional/test_b.py is no Python that can be parsed",
        ),
        ({"integration__test_b_py": GOOD}, "integration is no part of a suite"),
    ],
)
def test_each_silent_mistake_is_reported(template: Template, changes: dict[str, str], said: str) -> None:
    """A single mistake gives exactly one difference, with this text."""
    (difference,) = found(template, **changes)
    assert said in difference


@pytest.mark.parametrize("part", ["recipe_meta.py", "PARITY.md"])
def test_missing_file_of_the_template_is_reported(template: Template, part: str) -> None:
    """A suite without recipe_meta.py or PARITY.md differs."""
    files = {path: text.encode() for path, text in suite("x").items() if path != part}
    assert differences(files, template, layout="functional") == [f"it has no {part}"]


def test_suite_layout_must_match_the_template(template: Template) -> None:
    """A site whose suite_layout differs from the template's folder is reported."""
    files = {path.replace("functional", "custom"): text.encode() for path, text in suite("x").items()}
    (said,) = differences(files, template, layout="custom")
    assert said == "its tests are in custom/, those of uptime-kuma in functional/"


def test_all_differences_are_listed_at_once(template: Template) -> None:
    """All differences of a suite are reported together."""
    said = found(template, recipe_meta_py="A = 1\nB = 2\n", functional__test_b_py="import httpx\n" + GOOD)
    assert len(said) == 3


def test_suite_is_parsed_and_not_executed(template: Template, tmp_path: Path) -> None:
    """Code at the top of a file is not executed."""
    mark = tmp_path / "ran"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    assert found(template, recipe_meta_py=code, functional__test_b_py=code + GOOD) == []
    assert not mark.exists()
    exec(compile(code, "positive control", "exec"))
    assert mark.exists()
