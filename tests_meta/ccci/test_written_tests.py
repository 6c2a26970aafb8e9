"""Tests that cannot fail are recognised in their source, which is parsed and never executed."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping

import pytest

from fixtures.ccci.suites import META, Suite, git_blob, read_test_names
from fixtures.ccci.written_tests import WrittenTest, read_conftest, read_shared_conftest, read_tests

USES = "import pytest\nfrom harness.http import http_get\n"
FRONT = "    assert http_get(f'https://{live_app}/').status == 200\n"
FRONT_PAGE = f"def test_front(live_app):\n{FRONT}"


def method(body: str) -> str:
    return "def test_front(live_app):\n" + "".join(f"    {line}\n" for line in body.splitlines())


# Each of these is green whatever the recipe does: the source, and a part of the reason that is given.
CANNOT_FAIL: dict[str, tuple[str, str]] = {
    "only pass": (method("pass"), "nothing in its body can fail"),
    "only a docstring": (method('"""The front page answers."""'), "nothing in its body can fail"),
    "only an ellipsis": (method("..."), "nothing in its body can fail"),
    "only a print": (method("print(live_app)"), "nothing in its body can fail"),
    "assert True": (method("assert True"), "nothing in its body can fail"),
    "assert on a number": (method("assert 1 == 1"), "nothing in its body can fail"),
    "assert on a text": (method("assert 'the front page answers'"), "nothing in its body can fail"),
    "assert on a tuple": (method("assert (live_app, 'is there')"), "nothing in its body can fail"),
    "assert on a constant's name": (method("ok = True\nassert ok"), "nothing in its body can fail"),
    "assert on a module's constant": ("OK = 200\n" + method("assert OK == 200"), "nothing in its body can fail"),
    "assert of equal sides": (method("assert live_app == live_app"), "nothing in its body can fail"),
    "assert or True": (method("assert live_app or True"), "nothing in its body can fail"),
    "return before the assert": (method("return\nassert live_app == ''"), "nothing in its body can fail"),
    "if False": (method("if False:\n    assert live_app == ''"), "nothing in its body can fail"),
    "if not True": (method("if not True:\n    assert live_app == ''"), "nothing in its body can fail"),
    "while False": (method("while False:\n    assert live_app == ''"), "nothing in its body can fail"),
    "loop over an empty list": (method("for one in []:\n    assert one"), "nothing in its body can fail"),
    "nested function that is not called": (
        method("def check():\n    assert live_app == ''"),
        "nothing in its body can fail",
    ),
    "lambda that is not called": (method("check = lambda: http_get(live_app)"), "nothing in its body can fail"),
    "bare except": (method("try:\n    http_get(live_app)\nexcept:\n    pass"), "nothing in its body can fail"),
    "except Exception": (
        method("try:\n    assert http_get(live_app)\nexcept Exception as e:\n    print(e)"),
        "nothing in its body can fail",
    ),
    "except AssertionError": (
        method("try:\n    assert live_app == ''\nexcept (OSError, AssertionError):\n    return"),
        "nothing in its body can fail",
    ),
    "return in finally": (
        method("try:\n    http_get(live_app)\nfinally:\n    return"),
        "nothing in its body can fail",
    ),
    "suppress": (
        method("with contextlib.suppress(Exception):\n    http_get(live_app)"),
        "nothing in its body can fail",
    ),
    "skip mark": ("@pytest.mark.skip\n" + FRONT_PAGE, "always skipped"),
    "skip mark with a reason": ("@pytest.mark.skip(reason='flaky')\n" + FRONT_PAGE, "always skipped"),
    "skipif True": ("@pytest.mark.skipif(True, reason='x')\n" + FRONT_PAGE, "always skipped"),
    "skip of unittest": ("@unittest.skip('x')\n" + FRONT_PAGE, "always skipped"),
    "skipUnless False": ("@unittest.skipUnless(False, 'x')\n" + FRONT_PAGE, "always skipped"),
    "pytestmark": ("pytestmark = [pytest.mark.skip]\n" + FRONT_PAGE, "always skipped"),
    "xfail": ("@pytest.mark.xfail\n" + FRONT_PAGE, "expected to fail"),
    "pytest.skip in its body": (method("pytest.skip('later')\nassert live_app == ''"), "skips itself"),
    "pytest.skip behind a constant": (method("if True:\n    pytest.skip('x')\nassert live_app"), "skips itself"),
    "raise SkipTest": (method("raise unittest.SkipTest('x')"), "skips itself"),
    "module is skipped": ("pytest.skip('later', allow_module_level=True)\n" + FRONT_PAGE, "skipped as a whole"),
    "module is skipped behind a constant": (
        "if not False:\n    pytest.skip('x', allow_module_level=True)\n" + FRONT_PAGE,
        "skipped as a whole",
    ),
    "module without tests": ("__test__ = False\n" + FRONT_PAGE, "__test__ = False"),
    "class without tests": (f"class TestIt:\n    __test__ = False\n    def test_x(self):\n    {FRONT}", "__test__"),
    "class with a constructor": (
        f"class TestIt:\n    def __init__(self): self.x = 1\n    def test_x(self, live_app):\n    {FRONT}",
        "constructor",
    ),
    "class that is skipped": (
        f"@pytest.mark.skip\nclass TestIt:\n    def test_x(self, live_app):\n    {FRONT}",
        "always skipped",
    ),
    "replaced by a second of its name": (FRONT_PAGE + method("pass"), "nothing in its body can fail"),
    "replaced by a value": (FRONT_PAGE + "test_front = None\n", "replaces it"),
    "deleted": (FRONT_PAGE + "del test_front\n", "replaces it"),
    "no parameters": ("@pytest.mark.parametrize('path', [])\n" + FRONT_PAGE, "parameters is empty"),
    "coroutine": (f"async {FRONT_PAGE}", "coroutine"),
    "generator": (method("yield http_get(live_app)"), "generator"),
    "autouse fixture that skips": (
        "@pytest.fixture(autouse=True)\ndef no():\n    pytest.skip('x')\n" + FRONT_PAGE,
        "autouse fixture no skips",
    ),
}  # fmt: skip

# These are not tests at all.
NOT_COLLECTED: dict[str, str] = {
    "fixture named test": f"@pytest.fixture\n{FRONT_PAGE}",
    "fixture with a scope": f"@pytest.fixture(scope='module')\n{FRONT_PAGE}",
    "function in a function": f"def make():\n    def test_inner(live_app):\n    {FRONT}",
    "below if False": f"if False:\n    def test_x(live_app):\n    {FRONT}",
    "below the main guard": f"if __name__ == '__main__':\n    def test_x(live_app):\n    {FRONT}",
    "class of another name": f"class Checks:\n    def test_x(self, live_app):\n    {FRONT}",
    "misspelt": FRONT_PAGE.replace("test_front", "tset_front"),
}

# The positive controls: each of these can fail, and none is blamed.
CAN_FAIL: dict[str, str] = {
    "assert": FRONT_PAGE,
    "call of a helper": method("check_front_page(live_app)"),
    "request alone": method("http_get(live_app)"),
    "pytest.fail": method("if not live_app:\n    pytest.fail('no domain')"),
    "pytest.raises": method("with pytest.raises(OSError):\n    http_get(live_app)"),
    "assert in a loop": method("for path in ('/', '/x'):\n    assert http_get(path)"),
    "except that fails": method("try:\n    http_get(live_app)\nexcept Exception as e:\n    pytest.fail(str(e))"),
    "except of one kind": method("try:\n    assert http_get(live_app)\nexcept OSError:\n    pass"),
    "conditional skip": method("if not live_app:\n    pytest.skip('no domain')\nassert http_get(live_app)"),
    "conditional return": method("if not live_app:\n    return\nassert http_get(live_app)"),
    "skipif of a condition": "@pytest.mark.skipif(sys.platform == 'win32', reason='x')\n" + FRONT_PAGE,
    "strict xfail": "@pytest.mark.xfail(strict=True)\n" + FRONT_PAGE,
    "parameters": "@pytest.mark.parametrize('path', ['/'])\n" + FRONT_PAGE,
    "parameters of a name": "@pytest.mark.parametrize('path', PATHS)\n" + FRONT_PAGE,
    "coroutine with a plugin": f"@pytest.mark.asyncio\nasync {FRONT_PAGE}",
    "class": f"class TestIt:\n    def test_x(self, live_app):\n    {FRONT}",
    "TestCase": f"class Front(unittest.TestCase):\n    def test_x(self):\n    {FRONT}",
    "below if": f"if sys.version_info > (3, 11):\n    def test_x(live_app):\n    {FRONT}",
    "called nested function": method("def check():\n    assert live_app == ''\ncheck()"),
    "changed in a loop": method("found = 0\nfor one in rows(live_app):\n    found += 1\nassert found"),
}

CONFTESTS: dict[str, tuple[str, str]] = {
    "collect_ignore": ("collect_ignore = ['functional']\n", "collect_ignore"),
    "collect_ignore_glob": ("collect_ignore_glob = ['*']\n", "collect_ignore_glob"),
    "ignores all": ("def pytest_ignore_collect(collection_path):\n    return True\n", "ignores files"),
    "deselects all": ("def pytest_collection_modifyitems(items):\n    items[:] = []\n", "deselects"),
    "clears": ("def pytest_collection_modifyitems(items):\n    items.clear()\n", "deselects"),
    "deletes": ("def pytest_collection_modifyitems(items):\n    del items[:]\n", "deselects"),
    "skips all": (
        "def pytest_collection_modifyitems(items):\n    for one in items:\n"
        "        one.add_marker(pytest.mark.skip)\n",
        "deselects or skips",
    ),
    "skips at setup": ("def pytest_runtest_setup(item):\n    pytest.skip('x')\n", "deselects or skips"),
    "calls nothing": ("def pytest_pyfunc_call(pyfuncitem):\n    return True\n", "pytest_pyfunc_call"),
    "reports all as passed": (
        "def pytest_runtest_makereport(item, call):\n    ...\n",
        "pytest_runtest_makereport",
    ),
    "autouse fixture": ("@pytest.fixture(autouse=True)\ndef no():\n    pytest.skip('x')\n", "autouse fixture"),
    "no Python": ("def broken(:\n", "no Python"),
}


@pytest.mark.parametrize("form", CANNOT_FAIL)
def test_hollow_test_is_named_with_its_reason(form: str) -> None:
    """Of a file whose only test is green whatever the recipe does, every test has a flaw."""
    source, reason = CANNOT_FAIL[form]
    written = read_tests((USES + source).encode())
    assert written.tests
    assert written.flaw or all(test.flaw for test in written.tests)
    assert reason in "; ".join([written.flaw, *(test.flaw for test in written.tests)])


@pytest.mark.parametrize("form", NOT_COLLECTED)
def test_function_that_pytest_does_not_collect_is_no_test(form: str) -> None:
    """A fixture named test_…, a nested function, and one behind a constant are not listed."""
    assert read_tests((USES + NOT_COLLECTED[form]).encode()).tests == ()


@pytest.mark.parametrize("form", CAN_FAIL)
def test_sound_test_has_no_flaw(form: str) -> None:
    """A test that can fail is not blamed for its style."""
    written = read_tests((USES + CAN_FAIL[form]).encode())
    assert len(written.tests) == 1
    assert (written.flaw, written.tests[0].flaw) == ("", "")


def test_replaced_test_is_named_beside_the_one_that_stands() -> None:
    """Of two functions of one name the first never runs; the second is judged by its own body."""
    first, second = read_tests((USES + FRONT_PAGE + FRONT_PAGE).encode()).tests
    assert first == WrittenTest("test_front", "a later definition of its name replaces it")
    assert second == WrittenTest("test_front")


@pytest.mark.parametrize("form", CONFTESTS)
def test_conftest_that_empties_its_suite_is_named(form: str) -> None:
    """A hook, a setting or a fixture of the suite's own conftest that takes its tests away is a reason."""
    source, reason = CONFTESTS[form]
    assert reason in read_conftest(source.encode())


@pytest.mark.parametrize(
    ("ignored", "folder", "why"),
    [
        ("['ghost']", "ghost", "ignores ghost"),
        ("['ghost/', 'n8n']", "ghost", "ignores ghost"),
        ("['tests']", "tests/ghost", "ignores tests/ghost"),
        ("['gh*']", "ghost", "ignores ghost"),
        ("[os.path.join(HERE, 'ghost')]", "ghost", "ignores ghost"),
        ("['n8n', 'ghostly', '_generic']", "ghost", ""),
        ("[]", "ghost", ""),
    ],
)
def test_conftest_above_the_suites_is_a_reason_only_for_those_it_names(
    ignored: str, folder: str, why: str
) -> None:
    """Its hooks serve all suites; a list of ignored files is one for those that it names."""
    hook = "def pytest_runtest_makereport(item):\n    item.session.rows.append(item.name)\n"
    assert read_shared_conftest(f"collect_ignore = {ignored}\n{hook}".encode(), folder).endswith(why)
    assert bool(read_shared_conftest(f"collect_ignore = {ignored}\n".encode(), folder)) == bool(why)


def test_conftest_that_only_provides_fixtures_is_accepted() -> None:
    """Fixtures, sorting and added options take nothing away."""
    source = (
        "import pytest\ncollect_ignore = []\n@pytest.fixture\ndef app(live_app):\n    return live_app\n"
        "def pytest_collection_modifyitems(items):\n    items.sort(key=str)\n"
        "def pytest_ignore_collect():\n    return None\n"
    )
    assert read_conftest(source.encode()) == ""


def tar_gz(files: Mapping[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def read_suite(**files: str) -> Suite:
    """The suite of these files (``a__b.py`` is ``a/b.py``), read from an archive as cc-ci's is."""
    content = {re.sub("_(py|ini)$", r".\1", name.replace("__", "/", 1)): text for name, text in files.items()}
    blobs = {path: git_blob(text.encode()) for path, text in content.items()}
    archive = tar_gz({f"tests/ghost/{path}": text for path, text in content.items()})
    return read_test_names({"ghost": Suite("ghost", {META: "0" * 40} | blobs)}, "tests", archive)["ghost"]


def test_suite_covers_only_with_a_test_that_can_fail() -> None:
    """One sound test beside a hollow one suffices, and the hollow one is named; hollow ones alone do not."""
    sound = read_suite(functional__test_a_py=USES + FRONT_PAGE, functional__test_b_py=method("pass"))
    assert sound.covers
    assert sound.flaws == {"functional/test_b.py::test_front": "nothing in its body can fail"}
    hollow = read_suite(functional__test_b_py=method("pass"))
    assert not hollow.covers
    assert hollow.lacks.startswith("no test that can fail, for instance functional/test_b.py::test_front: ")


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("functional__test_b_py", "def broken(:\n", "functional/test_b.py: it is no Python"),
        ("conftest_py", "collect_ignore = ['functional']\n", "conftest.py: it sets collect_ignore"),
        ("functional__conftest_py", "collect_ignore_glob = ['*']\n", "functional/conftest.py: it sets"),
        ("pytest_ini", "[pytest]\npython_files = x_*.py\n", "pytest.ini: settings of its own"),
    ],
)
def test_file_that_blocks_its_suite_uncovers_it(file: str, text: str, why: str) -> None:
    """One file that cannot be parsed, or decides what is collected, takes the sound tests beside it away."""
    suite = read_suite(**{"functional__test_a_py": USES + FRONT_PAGE, file: text})
    assert not suite.covers
    assert suite.lacks.startswith(why)
