"""Remote texts that attack whoever reads them stay harmless in every output of a run.

Pull request titles, commit messages, unit names and build logs are written by strangers. Here each remote field of a
run holds markup, terminal sequences, direction overrides, NUL, or a megabyte.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from fixtures.config.secret import Secret
from fixtures.journal.load_record import load
from fixtures.journal.run_record import RunRecord
from fixtures.journal.status_line import status_line
from fixtures.journal.writer import Journal
from fixtures.notify.finding_state import FindingState
from fixtures.notify.issues import body_of
from fixtures.notify.notice import notice_of
from fixtures.notify.prometheus import metrics
from fixtures.notify.webhook import notify_webhook
from fixtures.plugin.console_summary import summarize
from reports import render
from tests_meta.clients.http_server import serving
from tests_meta.reports.report_suite import Outcome, Suite
from tests_meta.reports.sample_runs import write

MEGABYTE = 1_000_000
WHEN = datetime(2026, 6, 2, tzinfo=UTC)
ATTACKS = {
    "html": "<script>window.pwned=1</script><img src=x onerror=pwned()>\"'><!-- --><svg onload=pwned()>",
    "ansi": "\x1b[2J\x1b]0;owned\x07\x9b31m\r\x08done",
    "rtl": "\u202efdp.txt\u2066ok\u2069\u200f",
    "nul": "before\x00after",
    "markdown": "@here <!channel> <https://evil.example|x> [x](https://evil.example) ![](//evil.example/p) fixes #1 ` ",
    "megabyte": "A" * MEGABYTE,
}
# Fields of a journal line that no remote system writes: they decide how the line is read.
OWN = frozenset(
    (
        *(
            "type",
            "event",
            "outcome",
            "severity",
            "mode",
            "moment",
            "result",
            "at",
            "verdict",
            "verdict_at",
            "kind",
        ),
        *(
            "roster",
            "run",
            "site",
            "phase",
            "change",
            "nodeid",
            "id",
            "recipe",
            "target",
            "name",
            "test",
            "reason",
        ),
    )
)
# Control characters but for the line's end, the tab, and what a page holds of itself; and direction overrides.
DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# What a forge or a chat server turns into a mention, a reference, a link or an element.
OURS = r"(?!!-- muster:|https://(?:forge|drone)\.example\.org/)"
LIVE = re.compile(rf"@\w|(?<!\\)#\d|<{OURS}[!/a-z]|\]\(|(?<!<)https?://")

_CODE_SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")


def attacking(attack: str) -> type[Journal]:
    """A journal that appends the attack to each remote text; a megabyte only to the first line of each type."""

    class Attacked(Journal):
        seen: set[str]

        def _append(self, kind: str, fields: Any, *, durable: bool) -> None:
            self.seen = getattr(self, "seen", set())
            if len(attack) < MEGABYTE or kind not in self.seen:
                fields = {key: _poison(key, value, attack) for key, value in fields.items()}
            self.seen.add(kind)
            super()._append(kind, fields, durable=durable)

    return Attacked


def _poison(key: str, value: Any, attack: str) -> Any:
    if isinstance(value, dict):
        poisoned = {name: _poison(str(name), one, attack) for name, one in value.items()}
        # A megabyte in each of nineteen rows says no more than one in the first.
        return (
            poisoned
            if len(attack) < MEGABYTE or len(value) < 8
            else {**value, **dict(list(poisoned.items())[:1])}
        )
    if isinstance(value, list):
        return [_poison(key, one, attack) for one in value[:1]] + value[1:]
    return value + attack if isinstance(value, str) and key not in OWN else value


@pytest.fixture(scope="module", params=ATTACKS)
def attack(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def record(attack: str, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A run with every kind of line, rendered, of which each remote field holds the attack."""
    root = tmp_path_factory.mktemp("hostile")
    folder = write(root, "rolled-back", journal_type=attacking(ATTACKS[attack]))
    assert render(folder).problems == ()
    return load(folder)


class _Elements(HTMLParser):
    """Counts scripts, and collects event handlers and text."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_attack_reached_the_record(record: RunRecord, attack: str) -> None:
    """Each kind of line of the journal holds the attack (positive control)."""
    holding = json.dumps(ATTACKS[attack][:40], ensure_ascii=False)[1:-1], ATTACKS[attack][:40]
    lines = record.path.read_text(encoding="utf-8").splitlines()
    kinds = {json.loads(line)["type"] for line in lines if any(one in line for one in holding)}
    assert {"assertion", "finding", "intent", "wait", "roll", "regression", "diff"} <= kinds


@pytest.mark.parametrize("name", ["report.html", "index.html"])
def test_page_holds_no_live_attack(record: RunRecord, name: str) -> None:
    """Report and history hold no script but their own, no handler, no control character, and less than 15 MB."""
    folder = record.path.parent
    page = (folder / name if name == "report.html" else folder.parents[1] / name).read_text(encoding="utf-8")
    found = _Elements()
    found.feed(page)
    assert (found.scripts, found.handlers) == (1, [])
    assert DANGEROUS.search(page) is None
    assert len(page) < 15_000_000


def test_console_lines_are_printable(record: RunRecord) -> None:
    """Each line of the console's summary, and the status line, is printable and short."""
    lines = [one.text for one in summarize(record, unchanged={})] + [status_line(record)]
    assert len(lines) > 10
    assert [line for line in lines if not line.isprintable()] == []
    assert max(map(len, lines)) < 20_000


def test_issues_show_the_attack_as_text(record: RunRecord) -> None:
    """The text of each issue has no markup, no control character, no mention, and fits into an issue."""
    notice = notice_of(record, lambda text: text)
    assert notice is not None
    state = FindingState("2026-06-02", 1, "2026-06-02", "", "", "apply")
    groups = notice.groups("info", {})
    assert groups
    for group in groups:
        # A code span shows its content as it is.
        body = _CODE_SPAN.sub("", body_of(group, state, notice))
        assert "<script" not in body
        assert "<img" not in body
        assert DANGEROUS.search(body) is None
        assert not LIVE.search(body), LIVE.search(body)
        assert len(body) < 60_000
        assert DANGEROUS.search(group.title) is None


def test_webhook_text_holds_only_own_words(record: RunRecord, attack: str, tmp_path: Path) -> None:
    """What a chat server receives is a short JSON text that mentions nobody, links nowhere and holds no markup."""
    notice = notice_of(record, lambda text: text)
    assert notice is not None
    site: Any = SimpleNamespace(tell=SimpleNamespace(severity="info"))
    with serving() as server:
        notify_webhook(site, Secret(server.url, where="test"), notice, tmp_path)
    (asked,) = server.asked
    sent = json.loads(asked.body)
    assert len(sent["text"].splitlines()) > len(sent["findings"]) > 0
    for said in (*sent["text"].splitlines(), *sent["findings"]):
        assert said.isprintable()
        assert not LIVE.search(said), said
        assert ATTACKS[attack][:20] not in said
    assert len(asked.body) < 4_000
    assert LIVE.search(ATTACKS["markdown"])


def test_metrics_hold_only_own_words(record: RunRecord, attack: str) -> None:
    """The Prometheus textfile holds samples only, and nothing of the attack."""
    text = metrics(record, WHEN)
    assert DANGEROUS.search(text) is None
    assert ATTACKS[attack][:20] not in text
    for line in text.splitlines():
        assert re.match(r'(# (HELP|TYPE) )|[a-z_]+\{([a-z]+="[^"\n]*",?)*\} -?[0-9.]+$', line), line[:200]


def test_summary_is_json_and_bounded(record: RunRecord) -> None:
    """The summary can be read, and a long text in it is cut."""
    text = (record.path.parent / "summary.json").read_text(encoding="utf-8")
    assert json.loads(text)["verdict"] == "rolled-back"
    assert len(text) < 15_000_000


@pytest.fixture(scope="module")
def hostile_pytest(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A real pytest in which each attack is a failure's message, a skip's reason, and captured output."""
    suite = Suite(
        tmp_path_factory.mktemp("hostile-pytest"),
        f"""
        import pytest
        ATTACKS = {ATTACKS!r}
        @pytest.mark.parametrize("name", ATTACKS)
        def test_fails(name): pytest.fail(ATTACKS[name], pytrace=False)
        @pytest.mark.parametrize("name", ATTACKS)
        def test_raises(name):
            print(ATTACKS[name])
            raise ValueError(ATTACKS[name])
        @pytest.mark.parametrize("name", ATTACKS)
        def test_skips(name): pytest.skip(ATTACKS[name])
        """,
    )
    return suite.run("-rs", "--tb=short")


def test_junit_is_well_formed(hostile_pytest: Outcome) -> None:
    """junit.xml parses, has every test, and holds no control character."""
    assert hostile_pytest.exit == 1
    text = (hostile_pytest.run / "junit.xml").read_text(encoding="utf-8")
    assert len(ElementTree.fromstring(text).findall(".//testcase")) == 3 * len(ATTACKS)
    assert DANGEROUS.search(text) is None


def test_pytest_prints_no_control_character(hostile_pytest: Outcome) -> None:
    """What pytest prints of a failure, a skip and captured output cannot control a terminal, and is cut."""
    assert "□001B[2J" in hostile_pytest.printed
    assert DANGEROUS.search(hostile_pytest.printed) is None
    assert "more characters" in hostile_pytest.printed
    assert len(hostile_pytest.printed) < 400_000


def test_dangerous_characters_are_found() -> None:
    """Each attack but markup and length holds what the checks above look for (positive control)."""
    found = {name for name, text in ATTACKS.items() if DANGEROUS.search(text)}
    assert found == {"ansi", "rtl", "nul"}
