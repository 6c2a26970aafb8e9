"""A suite is compared with cc-ci's template before it is proposed: parts, keys, fixtures, imports."""

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
    """uptime-kuma's, below the conftest that cc-ci has on the night."""
    files = folder("uptime-kuma")
    conftest = (CCCI / "conftest.py").read_bytes()
    return template_of("uptime-kuma", parts=files, suite=files, conftests=[conftest], keys=Ccci().suite_keys)


def found(template: Template, layout: str = "functional", **changes: str) -> list[str]:
    files = {path: text.encode() for path, text in suite("x", **changes).items()}
    return differences(files, template, layout=layout)


def test_the_suite_for_hedgedoc_is_like_the_template(template: Template) -> None:
    """What muster carries could have been written at cc-ci."""
    carried = load_payload_suites(PAYLOAD)["hedgedoc"]
    assert differences(carried, template, layout="functional") == []


@pytest.mark.parametrize("recipe", [name for name in night.RECIPES if name != "hedgedoc"])
def test_every_suite_that_cc_ci_has_would_pass(template: Template, recipe: str) -> None:
    """The comparison refuses nothing that cc-ci's own authors wrote."""
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
def test_what_cc_ci_allows_is_no_difference(template: Template, changes: dict[str, str]) -> None:
    """Its fixtures and pytest's, own fixtures, parametrised names, defaults, neighbours, hooks, private names."""
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
def test_each_way_to_be_wrong_in_silence_is_named(template: Template, changes: dict[str, str], said: str) -> None:
    """One thing is wrong, and exactly that is said."""
    (difference,) = found(template, **changes)
    assert said in difference


@pytest.mark.parametrize("part", ["recipe_meta.py", "PARITY.md"])
def test_a_part_that_the_template_has_must_be_there(template: Template, part: str) -> None:
    """recipe_meta.py and PARITY.md are parts of every suite."""
    files = {path: text.encode() for path, text in suite("x").items() if path != part}
    assert differences(files, template, layout="functional") == [f"it has no {part}"]


def test_the_layout_is_the_templates(template: Template) -> None:
    """A site that still says the folder of before the move, or already that of after it, is told so."""
    files = {path.replace("functional", "custom"): text.encode() for path, text in suite("x").items()}
    (said,) = differences(files, template, layout="custom")
    assert said == "its tests are in custom/, those of uptime-kuma in functional/"


def test_all_differences_are_listed_at_once(template: Template) -> None:
    """An author mends them in one go."""
    said = found(template, recipe_meta_py="A = 1\nB = 2\n", functional__test_b_py="import httpx\n" + GOOD)
    assert len(said) == 3


def test_nothing_of_a_suite_is_executed(template: Template, tmp_path: Path) -> None:
    """It is parsed, not imported: code at the top of a file does not run."""
    mark = tmp_path / "ran"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    assert found(template, recipe_meta_py=code, functional__test_b_py=code + GOOD) == []
    assert not mark.exists()
    exec(compile(code, "positive control", "exec"))
    assert mark.exists()
