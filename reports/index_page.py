"""The history page: a line per night, and a strip per recipe of green and red over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports.history import Night, green_since
from reports.html_safety import Html, h
from reports.page import document, script
from reports.words import clock, day, plural, span, verdict_word

# A strip longer than this is wider than a page; older nights stay in the table.
STRIP = 60


def index(every: Sequence[Night], root: Path) -> str:
    """The page over all runs, newest first."""
    sites = list(dict.fromkeys(night.site for night in every))
    real = [site for site in sites if not all(n.rehearsal for n in every if n.site == site)]
    ordered = [*real, *(site for site in sites if site not in real)]
    newest = every[0] if every else None
    body = [
        h("a", "Skip to the runs", href="#runs", cls="skip"),
        h(
            "header",
            h(
                "div",
                h("p", h("b", "muster"), " history", cls="brand"),
                h("h1", plural(len(every), "run") if every else "No run yet"),
                h("p", _newest(newest), cls="lede") if newest else None,
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
    tone = verdict_word(newest.verdict).tone if newest else "plan"
    return document("muster history", tone, body, [("page", script())])


def _newest(night: Night) -> str:
    what = "REHEARSAL" if night.rehearsal else night.site
    said = verdict_word(night.verdict).headline
    return f"The newest is of {day(night.started)} {clock(night.started)} UTC, {what}: {said}."


def _site(site: str, its: list[Night], root: Path) -> Html:
    rehearsal = all(night.rehearsal for night in its)
    return h(
        "section",
        h("h2", site, h("span", "REHEARSAL", cls="tag-rehearsal") if rehearsal else None),
        _strips(its),
        h("div", _table(its, root), cls="scroll", tabindex="0", role="region", aria_label=f"Runs of {site}"),
    )


def _strips(its: list[Night]) -> Html | None:
    """One row a recipe, one cell a night, oldest left; the words beside it say the same."""
    shown = list(reversed(its[:STRIP]))
    recipes = sorted({recipe for night in shown for recipe, green in night.green.items() if green is not None})
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


def _strip(recipe: str, its: list[Night], shown: list[Night]) -> Html:
    verdicts = [night.green.get(recipe) for night in shown]
    newest = next((night.green[recipe] for night in its if night.green.get(recipe) is not None), None)
    since = green_since(its, recipe)
    word, tone = {True: ("green", "y"), False: ("red", "n"), None: ("no verdict", "u")}[newest]
    if newest is False and recipe in its[0].known_red:
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


def _table(its: list[Night], root: Path) -> Html:
    heads = [
        h("th", name, scope="col")
        for name in ("Started (UTC)", "Verdict", "Mode", "Took", "Roll", "Changed", "Found")
    ]
    return h(
        "table",
        h("thead", h("tr", heads)),
        h("tbody", [_row(night, root) for night in its]),
        cls="plain runs",
    )


def _row(night: Night, root: Path) -> Html:
    word = verdict_word(night.verdict)
    when = f"{day(night.started)} {clock(night.started)}"
    page = night.folder / "report.html"
    where = h("a", when, href=_address(page, root)) if page.is_file() else h("span", when, title=night.run)
    counts = " · ".join(f"{count}/{night.expected} {name}" for name, count in night.counts.items())
    return h(
        "tr",
        h("th", where, scope="row"),
        h("td", h("span", word.glyph, aria_hidden="true"), " ", word.headline, cls=f"v {word.tone}"),
        h("td", night.mode),
        h("td", span(night.wall_s), cls="num"),
        h("td", counts or "not called"),
        h("td", _changed(night)),
        h("td", _found(night)),
    )


def _address(page: Path, root: Path) -> str:
    return page.resolve().relative_to(root.resolve()).as_posix()


def _changed(night: Night) -> Html | str:
    if night.planned:
        return f"{night.planned} pending"
    if not night.changes:
        return "nothing"
    listed = h("ul", [h("li", change) for change in night.changes])
    return h("details", h("summary", plural(len(night.changes), "change")), listed)


def _found(night: Night) -> Html | str:
    if not night.findings:
        return "nothing"
    listed = h("ul", [h("li", f"{severity}: {what}") for _, severity, what in night.findings])
    return h("details", h("summary", plural(len(night.findings), "finding")), listed)
