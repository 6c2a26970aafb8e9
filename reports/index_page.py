"""The history page: a line for each run, and a strip for each recipe with green and red over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fixtures.journal import files
from fixtures.journal.past_runs import PastRun, green_since, list_runs
from fixtures.journal.words import clock, day, plural, span
from reports.html_safety import Html, h
from reports.page import document, script
from reports.words import verdict_word

# A strip longer than this is wider than a page; older runs are in the table only.
STRIP = 60


def write_index(root: Path) -> Path:
    """Write ``index.html`` over all runs under `root`, for those who may read the runs."""
    path = root / "index.html"
    files.write(path, index(list_runs(root), root), readers_of=root / "runs")
    return path


def index(every: Sequence[PastRun], root: Path) -> str:
    """The page over all runs, latest first."""
    sites = list(dict.fromkeys(run.site for run in every))
    real = [site for site in sites if not all(n.rehearsal for n in every if n.site == site)]
    ordered = [*real, *(site for site in sites if site not in real)]
    latest = every[0] if every else None
    body = [
        h("a", "Skip to the runs", href="#runs", cls="skip"),
        h(
            "header",
            h(
                "div",
                h("p", h("b", "muster"), " history", cls="brand"),
                h("h1", plural(len(every), "run") if every else "No run yet"),
                h("p", _latest(latest), cls="lede") if latest else None,
                cls="wrap",
            ),
            cls="top history",
        ),
        h(
            "main",
            [_site(site, [n for n in every if n.site == site], root) for site in ordered],
            id="runs",
            cls="wrap",
        ),
    ]
    tone = verdict_word(latest.verdict).tone if latest else "plan"
    return document("muster history", tone, body, [("page", script())])


def _latest(run: PastRun) -> str:
    what = "REHEARSAL" if run.rehearsal else run.site
    said = verdict_word(run.verdict).headline
    return f"The latest is of {day(run.started)} {clock(run.started)} UTC, {what}: {said}."


def _site(site: str, its: list[PastRun], root: Path) -> Html:
    rehearsal = all(run.rehearsal for run in its)
    return h(
        "section",
        h("h2", site, h("span", "REHEARSAL", cls="tag-rehearsal") if rehearsal else None),
        _strips(its),
        h("div", _table(its, root), cls="scroll", tabindex="0", role="region", aria_label=f"Runs of {site}"),
    )


def _strips(its: list[PastRun]) -> Html | None:
    """One row a recipe, one cell a run, oldest left; the same as words beside it."""
    shown = list(reversed(its[:STRIP]))
    recipes = sorted({recipe for run in shown for recipe, green in run.green.items() if green is not None})
    if not recipes:
        return None
    rows = [_strip(recipe, its, shown) for recipe in recipes]
    heads = [
        h("th", name, scope="col")
        for name in ("Recipe", "Now", "Green since", f"Last {plural(len(shown), 'run')}")
    ]
    return h(
        "div",
        h("table", h("thead", h("tr", heads)), h("tbody", rows), cls="strips plain"),
        cls="scroll",
        tabindex="0",
        role="region",
        aria_label="Green and red over time",
    )


def _strip(recipe: str, its: list[PastRun], shown: list[PastRun]) -> Html:
    verdicts = [run.green.get(recipe) for run in shown]
    latest = next((run.green[recipe] for run in its if run.green.get(recipe) is not None), None)
    since = green_since(its, recipe)
    word, tone = {True: ("green", "y"), False: ("red", "n"), None: ("no verdict", "u")}[latest]
    if latest is False and recipe in its[0].known_red:
        word, tone = "red, known", "k"
    greens, reds = verdicts.count(True), verdicts.count(False)
    cells = [
        h(
            "rect",
            x=index * 9,
            y={True: 2, False: 8, None: 17}[verdict],
            width=7,
            height=18 if verdict is True else 12 if verdict is False else 3,
            cls={True: "g", False: "r", None: "o"}[verdict],
        )
        for index, verdict in enumerate(verdicts)
    ]
    label = f"{recipe}: {greens} green, {reds} red in {plural(len(shown), 'run')}"
    return h(
        "tr",
        h("th", recipe, scope="row"),
        h("td", word, cls=tone),
        h("td", day(since) if since else ""),
        h(
            "td",
            h(
                "svg",
                h("title", label),
                cells,
                viewBox=f"0 0 {max(len(shown) * 9, 9)} 22",
                width=max(len(shown) * 9, 9),
                height=22,
                role="img",
                aria_label=label,
                cls="strip",
            ),
        ),
    )


def _table(its: list[PastRun], root: Path) -> Html:
    heads = [
        h("th", name, scope="col")
        for name in ("Started (UTC)", "Verdict", "Mode", "Took", "Roll", "Changed", "Found")
    ]
    return h(
        "table",
        h("thead", h("tr", heads)),
        h("tbody", [_row(run, root) for run in its]),
        cls="plain runs",
    )


def _row(run: PastRun, root: Path) -> Html:
    word = verdict_word(run.verdict)
    when = f"{day(run.started)} {clock(run.started)}"
    page = run.folder / "report.html"
    where = h("a", when, href=_address(page, root)) if page.is_file() else h("span", when, title=run.run)
    counts = " · ".join(f"{count}/{run.expected} {name}" for name, count in run.counts.items())
    if not run.whole:
        counts = f"{run.scope} checked completely"
    return h(
        "tr",
        h("th", where, scope="row"),
        h("td", h("span", word.glyph, aria_hidden="true"), " ", word.headline, cls=f"v {word.tone}"),
        h("td", run.mode),
        h("td", span(run.wall_s), cls="num"),
        h("td", counts or "not checked"),
        h("td", _changed(run)),
        h("td", _found(run)),
    )


def _address(page: Path, root: Path) -> str:
    return page.resolve().relative_to(root.resolve()).as_posix()


def _changed(run: PastRun) -> Html | str:
    if run.planned:
        return f"{run.planned} pending"
    if not run.changes:
        return "nothing"
    listed = h("ul", [h("li", change) for change in run.changes])
    return h("details", h("summary", plural(len(run.changes), "change")), listed)


def _found(run: PastRun) -> Html | str:
    if not run.findings:
        return "nothing"
    listed = h("ul", [h("li", f"{severity}: {what}") for _, severity, what in run.findings])
    return h("details", h("summary", plural(len(run.findings), "finding")), listed)
