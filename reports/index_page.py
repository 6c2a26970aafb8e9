"""The history page: a picture and a strip for each system, and a line for each run, to be filtered.

Everything is readable without a script; with one, the list of runs is filtered by site, mode and verdict (the choice is
in the address), and shown a hundred at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fixtures.journal import files
from fixtures.journal.kinds import Severity
from fixtures.journal.past_runs import POLL_COLUMNS, PastRun, green_since, list_runs
from fixtures.journal.words import clock, day, plural, span
from reports.html_safety import Html, h
from reports.nights_picture import nights_picture
from reports.page import document, script
from reports.words import verdict_word

# A strip longer than this is wider than a page; older runs are in the list only.
STRIP = 60
# So many rehearsal worlds are shown at once; the others are folded away.
WORLDS = 5


def write_index(root: Path, every: Sequence[PastRun] | None = None) -> Path:
    """Write ``index.html`` over all runs under `root`, for those who may read the runs.

    `every` are those runs where they were read already.
    """
    path = root / "index.html"
    files.write(path, index(list_runs(root) if every is None else every, root), readers_of=root / "runs")
    return path


def index(every: Sequence[PastRun], root: Path) -> str:
    """The page over all runs, latest first."""
    real = [run for run in every if not run.rehearsal]
    rehearsed = [run for run in every if run.rehearsal]
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
            [_system(its[0].site, its) for its in _systems(real)],
            _rehearsals(_systems(rehearsed)),
            _runs(every, root) if every else None,
            cls="wrap",
        ),
    ]
    tone = verdict_word(latest.verdict).tone if latest else "plan"
    return document("muster history", tone, body, [("page", script())])


def _latest(run: PastRun) -> str:
    what = "REHEARSAL" if run.rehearsal else run.site
    said = verdict_word(run.verdict).headline
    return f"The latest is of {day(run.started)} {clock(run.started)} UTC, {what}: {said}."


def _systems(every: Sequence[PastRun]) -> list[list[PastRun]]:
    """The runs of each system, that is of each site or of each rehearsal's world, latest first."""
    systems: list[list[PastRun]] = []
    for run in every:
        its = next((one for one in systems if one[0].same_system(run)), None)
        if its is None:
            systems.append([run])
        else:
            its.append(run)
    return systems


def _system(title: str, its: list[PastRun]) -> Html:
    return h("section", h("h2", title), nights_picture(its, of=title), _strips(its, of=title))


def _rehearsals(worlds: list[list[PastRun]]) -> Html | None:
    """A picture and a strip of its own for each rehearsal's world: they have nothing to do with each other."""
    if not worlds:
        return None
    shown = [_world(its) for its in worlds]
    older = shown[WORLDS:]
    return h(
        "section",
        h("h2", "Rehearsals", h("span", "REHEARSAL", cls="tag-rehearsal")),
        shown[:WORLDS],
        h("details", h("summary", plural(len(older), "older world")), older, cls="older") if older else None,
    )


def _world(its: list[PastRun]) -> Html:
    name = f"World {its[0].target[:8]}" if its[0].target else "A world without a record of its identity"
    said = f"{name}, {plural(len(its), 'run')}, last {day(its[0].started)} {clock(its[0].started)} UTC"
    return h(
        "div",
        h("h3", said),
        nights_picture(its, of=name) if len(its) > 1 else None,
        _strips(its, of=name),
        cls="world",
    )


def _strips(its: list[PastRun], *, of: str) -> Html | None:
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
        aria_label=f"Green and red over time: {of}",
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


def _runs(every: Sequence[PastRun], root: Path) -> Html:
    """Every run, with controls that the page's script shows; without it they have no function."""
    return h(
        "section",
        h("h2", "Every run"),
        _tools(every),
        h(
            "div",
            _table(every, root),
            cls="scroll",
            tabindex="0",
            role="region",
            aria_label="Every run",
        ),
        h(
            "p",
            h("button", "Newer", type="button", id="runs-newer"),
            h("output", "", id="runs-page"),
            h("button", "Older", type="button", id="runs-older"),
            cls="pager",
            hidden=True,
        ),
        id="runs",
    )


def _tools(every: Sequence[PastRun]) -> Html:
    choices = {
        "site": list(dict.fromkeys(run.site for run in every)),
        "mode": sorted({run.mode for run in every}),
        "verdict": sorted({run.verdict for run in every}),
    }
    labels = [
        h(
            "label",
            f"{name.capitalize()} ",
            h(
                "select",
                [h("option", "all", value=""), *(h("option", value, value=value) for value in values)],
                id=f"runs-{name}",
                data_filter=name,
            ),
        )
        for name, values in choices.items()
    ]
    return h("div", labels, h("output", plural(len(every), "run"), id="runs-count"), cls="tools", hidden=True)


def _table(every: Sequence[PastRun], root: Path) -> Html:
    names = ("Started (UTC)", "Verdict", "Site", "Mode", "Took", "Status", "Changed", "Found")
    return h(
        "table",
        h("thead", h("tr", [h("th", name, scope="col") for name in names])),
        h("tbody", [_row(run, root) for run in every]),
        cls="plain runs",
        id="runs-table",
    )


def _row(run: PastRun, root: Path) -> Html:
    word = verdict_word(run.verdict)
    when = f"{day(run.started)} {clock(run.started)}"
    page = run.folder / "report.html"
    where = h("a", when, href=_address(page, root)) if page.is_file() else h("span", when, title=run.run)
    counts = " · ".join(_figure(run, name) for name in POLL_COLUMNS) if run.counts else ""
    if not run.whole:
        counts = f"{run.scope} checked completely"
    glyph = h("span", word.glyph, aria_hidden="true")
    cells = [
        ("Verdict", h("span", glyph, " ", word.headline, cls=f"v {word.tone}")),
        ("Site", [run.site, h("span", " REHEARSAL", cls="small") if run.rehearsal else None]),
        ("Mode", run.mode),
        ("Took", span(run.wall_s)),
        ("Status", counts or "not checked"),
        ("Changed", _changed(run)),
        ("Found", _found(run)),
    ]
    return h(
        "tr",
        h("th", where, scope="row"),
        [h("td", value, data_label=name) for name, value in cells],
        data_site=run.site,
        data_mode=run.mode,
        data_verdict=run.verdict,
    )


def _address(page: Path, root: Path) -> str:
    return page.resolve().relative_to(root.resolve()).as_posix()


def _figure(run: PastRun, name: str) -> str:
    count = run.counts.get(name)
    return f"{name} unknown" if count is None else f"{count}/{run.expected} {name}"


def _changed(run: PastRun) -> Html | str:
    if run.planned:
        return f"{run.planned} pending"
    if run.undone_of_earlier and not run.changes:
        return f"{run.undone_of_earlier} undone"
    if not run.changes:
        return "nothing"
    listed = h("ul", [h("li", change) for change in run.changes])
    return h("details", h("summary", plural(len(run.changes), "change")), listed)


def _found(run: PastRun) -> list[Html | str]:
    """How many assertions failed, and the findings; those that are only good to know are counted apart."""
    failed = [f"{run.failed:,} failed"] if run.failed else []
    if not run.findings:
        return [*failed] or ["nothing"]
    urgent = sum(severity != Severity.INFO for _, severity, _ in run.findings)
    notices = len(run.findings) - urgent
    counts = [plural(urgent, "finding")] if urgent else []
    counts += [plural(notices, "notice")] if notices else []
    listed = h("ul", [h("li", f"{Severity.of(severity)}: {what}") for _, severity, what in run.findings])
    return [h("details", h("summary", ", ".join([*failed, *counts])), listed)]
