"""People are told of each finding once, in an issue that follows it, and hear nothing while nothing changes.

The forge is the embedded one, and a real Gitea where one is given; what stands there is read with a plain client.
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
from fixtures.errors import Refused, Unreachable
from fixtures.journal.kinds import OutsideSystem, Reason, Severity
from fixtures.journal.load_record import load
from fixtures.journal.run_record import Assertion, Finding, Planned, RunRecord
from fixtures.notify import after_run, issues, webhook
from fixtures.notify.finding_state import night_of
from fixtures.notify.grouping import group_findings
from fixtures.notify.issues import Issues
from fixtures.notify.notice import Notice
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
    """A night that went through all phases and found nothing."""
    found = load(sample_runs.write(tmp_path_factory.mktemp("sample"), "converged"))
    return replace(found, findings=(), changes=(), verdicts=(), started=FIRST)


def finding(what: str = "main is apart from upstream", recipe: str | None = "ghost", **more: str) -> Finding:
    given = {
        "id": f"mirror-{recipe}",
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
class Place:
    """One repository for one test, what muster tells there, and what stands there."""

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

    def tell(self, *findings: Finding, night: int | None = None, **more: Any) -> int:
        """One run; returns how many requests that wrote anything it took."""
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
        """All issues; waits until the list shows what the single ones show, for Gitea lists by an index."""

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
def place(forge: ForgeUnderTest, healthy: RunRecord) -> Place:
    return Place(forge.new_repo({"README.md": "cc-ci\n"}), healthy)


# -- the life of one issue ---------------------------------------------------------------------------------


def test_a_finding_is_told_once(place: Place) -> None:
    """The first night opens one issue with what, where and what to do; on the next ones only its count of nights
    moves, and nobody hears of it; a second run on one night writes nothing at all."""
    assert place.tell(finding()) == 1
    first = place.issues()
    assert [(one["title"], one["state"]) for one in first] == [
        ("muster: a mirror is not its upstream: ghost", "open")
    ]
    body = first[0]["body"]
    assert body.startswith("<!-- muster:finding:mirror-ghost -->\n")
    for words in ("main is apart from upstream", "https://forge.example.org/x", "do: Look", "Seen on one night"):
        assert words in body
    assert place.tell(finding(), night=1) == 0
    assert place.tell(finding()) == 1
    assert place.tell(finding()) == 1
    assert "Seen on 3 nights since the night of 2026-06-01" in place.issues()[0]["body"]
    assert len(place.issues()) == 1
    assert place.comments() == []


def test_numbers_and_commits_are_no_news(place: Place) -> None:
    """A mirror that is behind by another commit is still behind; other words are said, once a night."""
    place.tell(finding("main abcdef0123 is 2 behind"))
    place.tell(finding("main 0123abcdef is 3 behind"))
    assert place.comments() == []
    place.tell(finding("it is gone"))
    assert len(place.comments()) == 1
    assert "it is gone" in place.comments()[0]
    place.tell(finding("it is another one"), night=place.night)
    assert len(place.comments()) == 1
    assert "it is another one" in place.issues()[0]["body"]
    place.tell(finding("it is another one"))
    assert len(place.comments()) == 2, "what could not be said that night is said on the next"


def test_what_is_healed_is_closed_and_opened_again(place: Place) -> None:
    """Closed with a comment; quiet while healed; the same issue is opened again when the finding is back."""
    place.tell(finding())
    place.tell(finding())
    place.tell()
    assert [one["state"] for one in place.issues()] == ["closed"]
    assert "seen on 2 nights since the night of 2026-06-01" in place.comments()[0]
    assert place.tell() == 0
    place.tell(finding())
    assert [one["state"] for one in place.issues()] == ["open"]
    assert "It is back" in place.comments()[1]
    assert "Seen on one night" in place.issues()[0]["body"]
    place.tell(night=place.night)
    assert [one["state"] for one in place.issues()] == ["closed"]
    assert len(place.comments()) == 2, "one message a night, also when it heals on the night it came back"


def test_a_run_that_did_not_look_heals_nothing(place: Place) -> None:
    """One that ended early, one of a single phase, and a health check while anything is left: none of them can say
    that what an apply found is gone."""
    place.tell(finding())
    phases = place.healthy.phases
    assert place.tell(phases=phases[:3]) == 0
    assert place.tell(phases=tuple(replace(p, passed=0) if p.number == 4 else p for p in phases)) == 0
    place.tell(finding(recipe="n8n"), mode="health")
    assert [one["state"] for one in place.issues()] == ["open", "open"]
    place.tell(mode="health")
    assert [one["state"] for one in place.issues()] == ["closed", "closed"]


def test_an_issue_that_a_person_closed_stays_closed(place: Place) -> None:
    """It is counted and nobody is called, until it was healed and comes back."""
    place.tell(finding())
    place.forge.api().patch(f"{place.remote.api}/issues/1", json={"state": "closed"})
    place.tell(finding())
    place.tell(finding("something else"))
    assert [one["state"] for one in place.issues()] == ["closed"]
    place.tell()
    assert place.comments() == []
    place.tell(finding())
    assert [one["state"] for one in place.issues()] == ["open"]
    assert len(place.comments()) == 1


# -- whose issues ------------------------------------------------------------------------------------------


def test_what_others_wrote_is_never_taken_for_ours(place: Place) -> None:
    """A marker in an issue of another account means nothing: it is neither edited nor closed."""
    text = "<!-- muster:finding:mirror-ghost -->\nmine"
    made = place.forge.api("alice").post(f"{place.remote.api}/issues", json={"title": "t", "body": text})
    assert made.status_code == 201
    place.tell(finding())
    place.tell()
    first, second = place.issues()
    assert (first["body"], first["state"], first["title"]) == (text, "open", "t")
    assert (second["user"]["login"], second["state"]) == (BOT, "closed")


def test_a_text_that_was_edited_is_understood(place: Place) -> None:
    """Where somebody removed what is kept in the text, the issue's own age stands for it; two issues about one
    finding become one."""
    place.tell(finding())
    marker = "<!-- muster:finding:mirror-ghost -->\nedited\n"
    place.forge.api().patch(f"{place.remote.api}/issues/1", json={"body": marker})
    place.forge.api("issues").post(f"{place.remote.api}/issues", json={"title": "double", "body": marker})
    place.tell(finding())
    assert [one["state"] for one in place.issues()] == ["open", "closed"]
    assert "main is apart" in place.issues()[0]["body"]


def test_more_issues_than_one_page(place: Place) -> None:
    """The marker is found behind 60 other issues of the bot."""
    place.tell(finding())
    for number in range(60):
        place.forge.api().post(f"{place.remote.api}/issues", json={"title": f"other {number}"})
    place.forge.until(
        lambda: int(place.forge.api().get(f"{place.remote.api}/issues").headers["x-total-count"]) == 61,
        "the index",
    )
    place.tell(finding())
    assert "Seen on 2 nights" in place.forge.api().get(f"{place.remote.api}/issues/1").json()["body"]


def test_a_repository_that_is_not_there_is_named(place: Place) -> None:
    with pytest.raises(Refused, match=r"tell\.issues_repository"):
        place.reporter(f"{place.remote.owner}/no-such").issues()


def test_remote_words_reach_nobody(place: Place) -> None:
    """A finding that quotes an attacker calls nobody, refers to nothing, links nowhere and hides nothing; rendered
    by a real Gitea, the only link is the site's own address."""
    other = place.forge.api().post(f"{place.remote.api}/issues", json={"title": "other"}).json()["number"]
    place.tell(finding(EVIL, where=f"https://forge.example.org.evil.example/{EVIL}", do=EVIL))
    body = place.issues()[-1]["body"]
    assert body.count("<!--") == 2
    assert "\u202e" not in body
    for bad in ("@alice", "#1", "!1", "https://", "www.evil", "<img", "]("):
        assert bad not in body, bad
        assert bad in EVIL
    assert place.issues()[0]["comments"] == 0
    assert other == 1
    if place.forge.server.__class__.__name__ != "GiteaForge":
        return
    context = f"{place.forge.url}/{place.remote.owner}/{place.remote.name}"

    def rendered(text: str) -> str:
        asked = {"Text": text, "Mode": "comment", "Context": context, "Wiki": False}
        return str(place.forge.api().post("/markdown", json=asked).text)

    assert "<a " in rendered(EVIL), "the check would have seen a link"
    assert "<a " not in rendered(body)
    assert "<img" not in rendered(body)


# -- what is one finding -----------------------------------------------------------------------------------


def ids(record: RunRecord, **more: Any) -> list[str]:
    return [one.id for one in group_findings(record, severity="warning", **more)]


def test_a_dead_host_is_one_finding(healthy: RunRecord) -> None:
    """However many assertions of phase 0 it fails."""
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
    """By what the test declares, whatever its title says; a record that declares nothing counts as the forge."""
    one = failed(0, "the drone of the host was written", system=system)
    assert ids(replace(healthy, exit=1, assertions=(one,))) == [expected]


def test_every_preflight_test_declares_its_system() -> None:
    """Except the gate, which only repeats the others."""
    for name, function in runpy.run_path(str(PREFLIGHT)).items():
        if name.startswith("test_") and name != "test_gate":
            own = list(function.pytestmark)
            values = [value for mark in own if mark.name == "parametrize" for value in mark.args[1]]
            marks = own + [mark for value in values for mark in getattr(value, "marks", ())]
            assert [OutsideSystem(mark.args[0]) for mark in marks if mark.name == "system"], name


def test_a_dead_upstream_is_one_finding(healthy: RunRecord) -> None:
    """Nineteen recipes cannot all have lost their upstream for reasons of their own; three can. What is told as one
    stays one until the last recipe is healed."""
    every = tuple(failed(0, f"upstream has the recipe: {name}", name) for name in healthy.roster)
    assert ids(replace(healthy, exit=1, assertions=every)) == ["preflight-all"]
    few = replace(healthy, exit=1, assertions=every[:2])
    assert ids(few) == [f"preflight-{name}" for name in sorted(healthy.roster[:2])]
    assert ids(few, together=["preflight"]) == ["preflight-all"]


def test_a_finding_and_its_assertions_are_one(healthy: RunRecord) -> None:
    """A diverged mirror is a finding, a failed assertion in phase 1 and another in phase 6."""
    assertions = (
        failed(1, "it was brought up to date: ghost", "ghost"),
        failed(6, "it has passed: ghost", "ghost"),
    )
    assert ids(replace(healthy, exit=1, findings=(finding(),), assertions=assertions)) == ["mirror-ghost"]
    alone = replace(healthy, exit=1, assertions=assertions)
    assert ids(alone) == ["mirror-ghost"], "a health check tells it under the same name"


def test_a_deploy_and_what_it_broke_are_one(healthy: RunRecord) -> None:
    """A regression of the host belongs to the deploy that failed; one without such a deploy stands for itself."""
    broken = replace(healthy, exit=11, regressions=(("the bridge ran before and does not now", None),))
    assert ids(replace(broken, assertions=(failed(4, "the bridge runs"),))) == ["deploy"]
    assert ids(broken) == ["regression"]


def test_run_ids_and_counts_do_not_make_new_findings(healthy: RunRecord) -> None:
    """An undo that was refused, a killed run that nobody settled: the same on every night."""
    names = (
        "undo-3",
        "undo-7",
        "unfinished-20260602T001300000Z-cc-ci-apply",
        "settle-20260602T001300000Z-cc-ci-4",
    )
    findings = tuple(finding(id=name, recipe=None, what=name) for name in names)
    assert ids(replace(healthy, exit=12, findings=findings)) == ["settle", "undo", "unfinished"]


def test_pending_changes_are_drift_in_a_health_check(healthy: RunRecord) -> None:
    """One finding per mirror, one for poll set, host and triggers together."""
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
    told = group_findings(replace(drifted, assertions=assertions), severity="warning")
    assert [(one.id, one.severity) for one in told] == [("deploy", "warning"), ("mirror-ghost", "warning")]
    assert [len(one.items) for one in told] == [6, 2], "each drift is told with the change that would mend it"
    broken = replace(drifted, assertions=tuple(replace(one, reason=Reason.ASSERTED) for one in assertions))
    assert "enrollment-immich" in ids(broken), "what is not drift stands for itself"


def test_a_bad_end_without_a_reason_is_told(healthy: RunRecord) -> None:
    """A run that ends badly is never silent, and what only informs is not told."""
    info = finding(severity="info")
    assert ids(replace(healthy, exit=1, verdict="failed", findings=(info,))) == ["run"]
    assert ids(replace(healthy, findings=(info,))) == []


# -- the webhook, and what goes wrong ----------------------------------------------------------------------


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that a webhook would have got."""
    texts: list[str] = []
    monkeypatch.setattr(
        "fixtures.notify.webhook.send", lambda _url, _record, *, text, findings: texts.append(text)
    )
    return texts


def test_the_webhook_is_silent_while_nothing_changes(
    healthy: RunRecord, posted: list[str], tmp_path: Path
) -> None:
    """New, quiet, quiet, healed, quiet; on one night the same thing is said once; a damaged ledger says it again
    instead of failing; the run history is not asked, so it may be pruned."""
    site: Any = type("S", (), {"tell": type("T", (), {"severity": "warning"})()})()
    hook = Secret("https://hook.example.org/x", where="test")

    def night(number: int, *findings: Finding) -> int:
        started = FIRST + timedelta(days=number)
        record = replace(healthy, changes=(), findings=findings, started=started, exit=1 if findings else 0)
        before = len(posted)
        webhook.notify_webhook(site, hook, Notice(record, night_of(started), lambda text: text), tmp_path)
        return len(posted) - before

    told = [night(0), night(1, finding()), night(1, finding()), night(2, finding()), night(3, finding())]
    assert told == [0, 1, 0, 0, 0]
    assert "new: muster: a mirror is not its upstream: ghost" in posted[-1]
    assert [night(4), night(4), night(5)] == [1, 0, 0]
    assert "healed: mirror-ghost (seen on 3 nights since the night of 2026-06-02)" in posted[-1]
    (tmp_path / "told.json").write_text('{"autonomic": {"mirror-ghost": 3')
    assert night(6, finding()) == 1
    assert json.loads((tmp_path / "told.json").read_text())


def test_a_night_is_from_noon_to_noon() -> None:
    """A sweep that starts now before and now after midnight neither skips a night nor counts one twice."""
    assert night_of(datetime(2026, 6, 1, 23, 58, tzinfo=UTC)) == night_of(FIRST) == "2026-06-01"
    assert night_of(datetime(2026, 6, 2, 23, 58, tzinfo=UTC)) == "2026-06-02"


def test_a_forge_that_is_down_costs_one_line(healthy: RunRecord, tmp_path: Path) -> None:
    """Nothing is raised, and the token is not in the line."""

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
