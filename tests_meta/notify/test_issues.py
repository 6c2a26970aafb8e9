"""Each finding is reported once, in an issue that is kept up to date; without a change nobody is notified.

The forge is the embedded one, and a real Gitea where one is given; issues are read back with a plain client.
"""

from __future__ import annotations

import json
import runpy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures.clients.forge_issues import IssueClient
from fixtures.clients.http import Http
from fixtures.config.secret import Secret
from fixtures.deploy.host_facts import FactKind
from fixtures.errors import Refused, Unreachable
from fixtures.journal.finding_kinds import FindingKind, finding_kind
from fixtures.journal.kinds import OutsideSystem, Reason, Severity
from fixtures.journal.load_record import load
from fixtures.journal.run_record import Assertion, Finding, Planned, RunRecord
from fixtures.notify import after_run, issues, webhook
from fixtures.notify.finding_state import night_of
from fixtures.notify.grouping import group_findings
from fixtures.notify.issues import Issues
from fixtures.notify.notice import Notice
from fixtures.verdicts.findings import ADVICE
from tests_meta.rehearsal.forge_server import BOT, ForgeUnderTest, Remote, forge
from tests_meta.reports import sample_runs

__all__ = ["forge"]
PREFLIGHT = Path(__file__).parents[2] / "phases" / "test_0_preflight.py"
FIRST = datetime(2026, 6, 2, 0, 13, tzinfo=UTC)
EVIL = (
    "branch `x` by @alice and @recipe-maintainers/owners fixes #1, see recipe-maintainers/cc-ci#1 and !1 "
    "https://evil.example/a [here](https://evil.example) ![](https://evil.example/p.png) <img src=x onerror=1> "
    "www.evil.example 0123456789abcdef0123456789abcdef01234567 :smile: "
    "\u202e<!-- muster:finding:deploy-failed -->\n\n# H"
)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """The record of a run that finished all phases without a finding."""
    found = load(sample_runs.write(tmp_path_factory.mktemp("sample"), "converged"))
    return replace(found, findings=(), changes=(), verdicts=(), started=FIRST)


def finding(what: str = "main is apart from upstream", recipe: str | None = "ghost", **more: str) -> Finding:
    given = {
        "id": f"mirror-{recipe}",
        "kind": FindingKind.MIRROR,
        "where": "https://forge.example.org/x",
        "do": "Look.",
    }
    severity = Severity.of(more.pop("severity", Severity.ACTION))
    return Finding(what=what, recipe=recipe, severity=severity, **(given | more))


def failed(
    phase: int,
    title: str,
    recipe: str | None = None,
    system: OutsideSystem | None = None,
    *,
    reason: str = Reason.ASSERTED,
) -> Assertion:
    return Assertion(
        f"phases/test_{phase}.py::x",
        phase,
        recipe,
        title,
        "failed",
        "",
        "a",
        "b",
        "git ls-remote x",
        "",
        0.1,
        "x:1",
        reason,
        system,
    )


@dataclass
class IssueTracker:
    """One repository for one test: updates its issues as muster does, and reads them back."""

    remote: Remote
    healthy: RunRecord
    night: int = 0
    runs: int = 0

    @property
    def forge(self) -> ForgeUnderTest:
        return self.remote.forge

    def reporter(self, repository: str = "") -> IssueClient:
        token = Secret(f"token {self.forge.server.tokens['issues']}", where="test")
        http = Http("forge", self.forge.url, timeout_s=20, headers={"Authorization": token})
        return IssueClient(http, repository=repository or f"{self.remote.owner}/{self.remote.name}", bot=BOT)

    def report(self, *findings: Finding, night: int | None = None, **more: Any) -> int:
        """Report the findings of one run; returns the number of its writing requests."""
        self.night = self.night + 1 if night is None else night
        started = FIRST + timedelta(days=self.night - 1)
        self.runs += 1
        record = replace(
            self.healthy,
            findings=findings,
            started=started,
            run=f"run-{self.runs}",
            exit=1 if findings else 0,
            **more,
        )
        reporter = self.reporter()
        Issues(reporter, Notice(record, night_of(started), lambda text: text), severity="warning").update()
        requests = reporter.requests - 1
        reporter.close()
        return requests

    def issues(self) -> list[dict[str, Any]]:
        """All issues; waits until Gitea's index of the list agrees with the single issues."""

        def listed() -> list[dict[str, Any]] | None:
            found = (
                self.forge.api()
                .get(f"{self.remote.api}/issues", params={"state": "all", "type": "issues"})
                .json()
            )
            single = [self.forge.api().get(f"{self.remote.api}/issues/{one['number']}").json() for one in found]
            return found if [one["state"] for one in single] == [one["state"] for one in found] else None

        found = self.forge.until(lambda: [listed()], "the list of issues")[0] or []
        return sorted(found, key=lambda one: int(one["number"]))

    def comments(self, number: int = 1) -> list[str]:
        found = self.forge.api().get(f"{self.remote.api}/issues/{number}/comments").json()
        return [str(one["body"]) for one in found]


@pytest.fixture
def tracker(forge: ForgeUnderTest, healthy: RunRecord) -> IssueTracker:
    return IssueTracker(forge.new_repo({"README.md": "cc-ci\n"}), healthy)


# -- one issue over many nights ---------------------------------------------------------------------------------


def test_finding_is_reported_once(tracker: IssueTracker) -> None:
    """The first night opens one issue with what, where and what to do; later nights only update its count of nights,
    without a comment; a second run in the same night writes nothing."""
    assert tracker.report(finding()) == 1
    first = tracker.issues()
    assert [(one["title"], one["state"]) for one in first] == [
        ("muster: a mirror is not its upstream: ghost", "open")
    ]
    body = first[0]["body"]
    assert body.startswith("<!-- muster:finding:mirror-ghost -->\n")
    for words in ("main is apart from upstream", "https://forge.example.org/x", "do: Look", "Seen on one night"):
        assert words in body
    assert tracker.report(finding(), night=1) == 0
    assert tracker.report(finding()) == 1
    assert tracker.report(finding()) == 1
    assert "Seen on 3 nights since the night of 2026-06-01" in tracker.issues()[0]["body"]
    assert len(tracker.issues()) == 1
    assert tracker.comments() == []


def test_changed_numbers_and_commits_are_not_reported(tracker: IssueTracker) -> None:
    """A text that differs only in numbers or commits adds no comment; another text adds one, at most once a night."""
    tracker.report(finding("main abcdef0123 is 2 behind"))
    tracker.report(finding("main 0123abcdef is 3 behind"))
    assert tracker.comments() == []
    tracker.report(finding("it is gone"))
    assert len(tracker.comments()) == 1
    assert "it is gone" in tracker.comments()[0]
    tracker.report(finding("it is another one"), night=tracker.night)
    assert len(tracker.comments()) == 1
    assert "it is another one" in tracker.issues()[0]["body"]
    tracker.report(finding("it is another one"))
    assert len(tracker.comments()) == 2, "what could not be said that night is said on the next"


def test_fixed_finding_is_closed_and_reopened_when_it_returns(tracker: IssueTracker) -> None:
    """The issue of a fixed finding is closed with a comment, and reopened when the finding returns."""
    tracker.report(finding())
    tracker.report(finding())
    tracker.report()
    assert [one["state"] for one in tracker.issues()] == ["closed"]
    assert "seen on 2 nights since the night of 2026-06-01" in tracker.comments()[0]
    assert tracker.report() == 0
    tracker.report(finding())
    assert [one["state"] for one in tracker.issues()] == ["open"]
    assert "It is back" in tracker.comments()[1]
    assert "Seen on one night" in tracker.issues()[0]["body"]
    tracker.report(night=tracker.night)
    assert [one["state"] for one in tracker.issues()] == ["closed"]
    assert len(tracker.comments()) == 2, "one message a night, also when it heals on the night it came back"


def test_incomplete_run_closes_no_issue(tracker: IssueTracker) -> None:
    """A run that ended early, a run of a single phase, and a health check with findings do not close the issues of an
    apply."""
    tracker.report(finding())
    phases = tracker.healthy.phases
    assert tracker.report(phases=phases[:3]) == 0
    assert tracker.report(phases=tuple(replace(p, passed=0) if p.number == 4 else p for p in phases)) == 0
    tracker.report(finding(recipe="n8n"), mode="health")
    assert [one["state"] for one in tracker.issues()] == ["open", "open"]
    tracker.report(mode="health")
    assert [one["state"] for one in tracker.issues()] == ["closed", "closed"]


def test_issue_closed_by_a_person_stays_closed(tracker: IssueTracker) -> None:
    """An issue closed by a person is only counted; it is reopened when the finding was fixed and returns."""
    tracker.report(finding())
    tracker.forge.api().patch(f"{tracker.remote.api}/issues/1", json={"state": "closed"})
    tracker.report(finding())
    tracker.report(finding("something else"))
    assert [one["state"] for one in tracker.issues()] == ["closed"]
    tracker.report()
    assert tracker.comments() == []
    tracker.report(finding())
    assert [one["state"] for one in tracker.issues()] == ["open"]
    assert len(tracker.comments()) == 1


# -- whose issues ------------------------------------------------------------------------------------------


def test_issues_of_other_accounts_are_ignored(tracker: IssueTracker) -> None:
    """An issue of another account is neither edited nor closed, even with a marker in it."""
    text = "<!-- muster:finding:mirror-ghost -->\nmine"
    made = tracker.forge.api("alice").post(f"{tracker.remote.api}/issues", json={"title": "t", "body": text})
    assert made.status_code == 201
    tracker.report(finding())
    tracker.report()
    first, second = tracker.issues()
    assert (first["body"], first["state"], first["title"]) == (text, "open", "t")
    assert (second["user"]["login"], second["state"]) == (BOT, "closed")


def test_edited_issue_is_updated_and_its_duplicate_closed(tracker: IssueTracker) -> None:
    """An issue from which somebody removed the stored state is written again, and a second issue about the same finding
    is closed."""
    tracker.report(finding())
    marker = "<!-- muster:finding:mirror-ghost -->\nedited\n"
    tracker.forge.api().patch(f"{tracker.remote.api}/issues/1", json={"body": marker})
    tracker.forge.api("issues").post(f"{tracker.remote.api}/issues", json={"title": "double", "body": marker})
    tracker.report(finding())
    assert [one["state"] for one in tracker.issues()] == ["open", "closed"]
    assert "main is apart" in tracker.issues()[0]["body"]


def test_issue_is_found_beyond_the_first_page(tracker: IssueTracker) -> None:
    """The issue is found among 60 later issues of the bot."""
    tracker.report(finding())
    for number in range(60):
        tracker.forge.api().post(f"{tracker.remote.api}/issues", json={"title": f"other {number}"})
    tracker.forge.until(
        lambda: int(tracker.forge.api().get(f"{tracker.remote.api}/issues").headers["x-total-count"]) == 61,
        "the index",
    )
    tracker.report(finding())
    assert "Seen on 2 nights" in tracker.forge.api().get(f"{tracker.remote.api}/issues/1").json()["body"]


def test_missing_repository_names_its_setting(tracker: IssueTracker) -> None:
    with pytest.raises(Refused, match=r"tell\.issues_repository"):
        tracker.reporter(f"{tracker.remote.owner}/no-such").issues()


def test_remote_text_is_neutralized(tracker: IssueTracker) -> None:
    """Remote text in an issue mentions no account, refers to no issue, has no link and hides nothing, also as
    rendered by a real Gitea."""
    other = tracker.forge.api().post(f"{tracker.remote.api}/issues", json={"title": "other"}).json()["number"]
    tracker.report(finding(EVIL, where=f"https://forge.example.org.evil.example/{EVIL}", do=EVIL))
    body = tracker.issues()[-1]["body"]
    assert body.count("<!--") == 2
    assert "\u202e" not in body
    for bad in ("@alice", "#1", "!1", "https://", "www.evil", "<img", "]("):
        assert bad not in body, bad
        assert bad in EVIL
    assert tracker.issues()[0]["comments"] == 0
    assert other == 1
    if tracker.forge.server.__class__.__name__ != "GiteaForge":
        return
    context = f"{tracker.forge.url}/{tracker.remote.owner}/{tracker.remote.name}"

    def rendered(text: str) -> str:
        request = {"Text": text, "Mode": "comment", "Context": context, "Wiki": False}
        return str(tracker.forge.api().post("/markdown", json=request).text)

    assert "<a " in rendered(EVIL), "the check would have seen a link"
    assert "<a " not in rendered(body)
    assert "<img" not in rendered(body)


# -- grouping -----------------------------------------------------------------------------------


def ids(record: RunRecord, **more: Any) -> list[str]:
    return [one.id for one in group_findings(record, severity="warning", **more)]


def test_unreachable_host_is_one_finding(healthy: RunRecord) -> None:
    """All failed assertions of phase 0 about the host are one finding."""
    titles = ("the host is the configured one: hostname", "its clock agrees with ours: host",
              "the baseline is complete")  # fmt: skip
    assert ids(
        replace(
            healthy, exit=1, assertions=tuple(failed(0, title, system=OutsideSystem.HOST) for title in titles)
        )
    ) == ["preflight-host"]


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (OutsideSystem.FORGE, "preflight-forge"),
        (OutsideSystem.DRONE, "preflight-drone"),
        (OutsideSystem.HOST, "preflight-host"),
        (None, "preflight-forge"),
    ],
)
def test_a_preflight_failure_is_named_for_its_system(
    healthy: RunRecord, system: OutsideSystem | None, expected: str
) -> None:
    """The system is the one the test declares, not one in its title; without a declaration it is the forge."""
    one = failed(0, "the drone of the host was written", system=system)
    assert ids(replace(healthy, exit=1, assertions=(one,))) == [expected]


def test_every_preflight_test_declares_its_system() -> None:
    """Each test of phase 0 except the gate has a ``system`` mark."""
    for name, function in runpy.run_path(str(PREFLIGHT)).items():
        if name.startswith("test_") and name != "test_gate":
            own = list(function.pytestmark)
            values = [value for mark in own if mark.name == "parametrize" for value in mark.args[1]]
            marks = own + [mark for value in values for mark in getattr(value, "marks", ())]
            assert [OutsideSystem(mark.args[0]) for mark in marks if mark.name == "system"], name


def test_unreachable_upstream_is_one_finding(healthy: RunRecord) -> None:
    """When all recipes lack their upstream, that is one finding; few recipes are one finding each. A combined finding
    stays combined until its last recipe is fixed."""
    every = tuple(failed(0, f"upstream has the recipe: {name}", name) for name in healthy.roster)
    assert ids(replace(healthy, exit=1, assertions=every)) == ["preflight-all"]
    few = replace(healthy, exit=1, assertions=every[:2])
    assert ids(few) == [f"preflight-{name}" for name in sorted(healthy.roster[:2])]
    assert ids(few, together=["preflight"]) == ["preflight-all"]


def test_finding_and_its_assertions_are_one_group(healthy: RunRecord) -> None:
    """The finding about a mirror and the failed assertions about it are one group with one marker."""
    assertions = (
        failed(1, "it was brought up to date: ghost", "ghost"),
        failed(6, "it has passed: ghost", "ghost"),
    )
    assert ids(replace(healthy, exit=1, findings=(finding(),), assertions=assertions)) == ["mirror-ghost"]
    alone = replace(healthy, exit=1, assertions=assertions)
    assert ids(alone) == ["mirror-ghost"], "a health check reports it with the same marker"


def test_failed_deploy_includes_its_regressions(healthy: RunRecord) -> None:
    """A regression of the host belongs to the group of the failed deploy; without one it has its own group."""
    broken = replace(healthy, exit=11, regressions=(("the bridge ran before and does not now", None),))
    assert ids(replace(broken, assertions=(failed(4, "the bridge runs"),))) == ["deploy"]
    assert ids(broken) == ["regression"]


def test_run_ids_and_counts_do_not_make_new_findings(healthy: RunRecord) -> None:
    """Run ids and change numbers are not part of a marker, so a repeated problem keeps its issue."""
    names = {
        "undo-3": FindingKind.UNDO,
        "undo-7": FindingKind.UNDO,
        "unfinished-20260602T001300000Z-cc-ci-apply": FindingKind.UNFINISHED,
        "settle-20260602T001300000Z-cc-ci-4": FindingKind.SETTLE,
    }
    findings = tuple(finding(id=name, kind=kind, recipe=None, what=name) for name, kind in names.items())
    assert ids(replace(healthy, exit=12, findings=findings)) == ["settle", "undo", "unfinished"]


def test_names_on_the_host_stay_out_of_title_and_marker(healthy: RunRecord) -> None:
    """Failed units are one group, whose title and marker hold no unit's name; its text does (positive control)."""
    units = ("backup@alice.service", "<b>fixes #1</b>.service")
    findings = tuple(
        finding(
            id=f"host-failed-unit-{unit}", kind=FindingKind.HOST_FAILED_UNIT, recipe=None, what=f"{unit} failed"
        )
        for unit in units
    )
    (group,) = group_findings(replace(healthy, exit=1, findings=findings), severity="warning")
    assert (group.id, group.title) == ("host-failed-unit", "muster: a unit has failed")
    assert [item.what for item in group.items] == [f"{unit} failed" for unit in units]


def test_every_kind_of_fact_and_verdict_is_a_kind_of_finding() -> None:
    """Kinds that are made of another word exist, and a word of another version is reported as a run that failed."""
    made = [f"host-{kind}" for kind in FactKind]
    made += list(ADVICE)
    assert [finding_kind(word) for word in made] == [FindingKind(word) for word in made]
    assert finding_kind("of another version") is FindingKind.RUN


def test_pending_changes_are_drift_in_a_health_check(healthy: RunRecord) -> None:
    """Drift is one group for each mirror, and one for poll set, host and triggers together."""
    steps: list[tuple[str, str, int, str | None]] = [
        ("sync", "org/ghost", 1, "ghost"),
        ("enroll", "org/cc-ci: bridge.nix", 3, None),
        ("switch", "10.0.0.1", 4, None),
        ("trigger", "org/ghost", 5, "ghost"),
    ]
    planned = tuple(
        Planned(kind, target, None, None, "why", "change", phase, recipe) for kind, target, phase, recipe in steps
    )
    drifted = replace(healthy, mode="health", exit=1, planned=planned)
    assert ids(drifted) == ["deploy", "mirror-ghost"]
    titles = ((1, "its head is upstream's head: ghost", "ghost"), (3, "it is in the poll set: immich", "immich"),
              (4, "three poll sets are equal", None), (6, "it has passed muster: immich", "immich"))  # fmt: skip
    assertions = tuple(failed(*one, reason=Reason.DRIFT) for one in titles)
    groups = group_findings(replace(drifted, assertions=assertions), severity="warning")
    assert [(one.id, one.severity) for one in groups] == [("deploy", "warning"), ("mirror-ghost", "warning")]
    assert [len(one.items) for one in groups] == [6, 2], (
        "each drift is reported with the change that would fix it"
    )
    broken = replace(drifted, assertions=tuple(replace(one, reason=Reason.ASSERTED) for one in assertions))
    assert "enrollment-immich" in ids(broken), "a failure that is not drift has its own group"


def test_failed_run_without_findings_is_reported(healthy: RunRecord) -> None:
    """A failed run without findings is reported as a group of its own; severity info is not reported."""
    info = finding(severity="info")
    assert ids(replace(healthy, exit=1, verdict="failed", findings=(info,))) == ["run"]
    assert ids(replace(healthy, findings=(info,))) == []


# -- the webhook, and what goes wrong ----------------------------------------------------------------------


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts sent to the webhook."""
    texts: list[str] = []
    monkeypatch.setattr(
        "fixtures.notify.webhook.send", lambda _url, _record, *, text, findings: texts.append(text)
    )
    return texts


def test_webhook_sends_only_changes(healthy: RunRecord, posted: list[str], tmp_path: Path) -> None:
    """The webhook sends new and fixed findings, each once a night; with a damaged ledger it sends a finding again. It
    does not read the run history, which may be pruned."""
    site: Any = type("S", (), {"tell": type("T", (), {"severity": "warning"})()})()
    hook = Secret("https://hook.example.org/x", where="test")

    def night(number: int, *findings: Finding) -> int:
        started = FIRST + timedelta(days=number)
        record = replace(healthy, changes=(), findings=findings, started=started, exit=1 if findings else 0)
        before = len(posted)
        webhook.notify_webhook(site, hook, Notice(record, night_of(started), lambda text: text), tmp_path)
        return len(posted) - before

    sent = [night(0), night(1, finding()), night(1, finding()), night(2, finding()), night(3, finding())]
    assert sent == [0, 1, 0, 0, 0]
    assert "new: muster: a mirror is not its upstream: ghost" in posted[-1]
    assert [night(4), night(4), night(5)] == [1, 0, 0]
    assert "healed: mirror-ghost (seen on 3 nights since the night of 2026-06-02)" in posted[-1]
    (tmp_path / "told.json").write_text('{"autonomic": {"mirror-ghost": 3')
    assert night(6, finding()) == 1
    assert json.loads((tmp_path / "told.json").read_text())


def test_a_night_is_from_noon_to_noon() -> None:
    """Runs that start shortly before and shortly after midnight count for the same night."""
    assert night_of(datetime(2026, 6, 1, 23, 58, tzinfo=UTC)) == night_of(FIRST) == "2026-06-01"
    assert night_of(datetime(2026, 6, 2, 23, 58, tzinfo=UTC)) == "2026-06-02"


def test_unreachable_forge_is_one_line(healthy: RunRecord, tmp_path: Path) -> None:
    """An unreachable forge gives one line without the token, and no exception."""

    class Down:
        def issues(self) -> list[object]:
            raise Unreachable("forge: no answer with s3cret-token")

    site: Any = type(
        "S",
        (),
        {
            "tell": type("T", (), {"severity": "warning", "issues_repository": "a/b"})(),
            "record": type("R", (), {"textfile": None})(),
        },
    )()
    keys: Any = type("K", (), {"webhook": None, "ping": None})()
    record = replace(healthy, findings=(finding(),), exit=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(issues, "open_issue_client", lambda *_: _closing(Down()))
        lines = after_run.notify(site, keys, record, tmp_path, lambda text: text.replace("s3cret-token", "***"))
    assert lines == ["not notified: forge: no answer with ***"]
    assert after_run.notify(site, keys, replace(record, mode="plan"), tmp_path, str) == []


def _closing(thing: Any) -> Any:
    thing.close = lambda: None
    return thing
