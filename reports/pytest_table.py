"""pytest-html's own table inside this page: its data and its script, without its traps.

pytest-html keeps the tests in a JSON attribute and builds the table with a script. Its page puts test ids,
metadata and extras into the document as live HTML, is empty without a script, needs an inline event handler that
a strict policy forbids, has filters without labels, and takes 24 seconds for 12,000 rows. So its finished file is
read, what is data is taken out of it and escaped again, long runs are folded to a row a phase, and the table gets
a scaffold of this page's own around the unchanged script (pytest-html 4: resources/index.jinja2, app.js).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser
from typing import Any

from reports.html_safety import Html, h, raw, safe_url, text

# pytest-html's script rebuilds every row at every click: 600 rows take about a second on two cores.
MOST_ROWS = 600
MOST_FAILURES = 150
SCRIPT_ID = "pytest-html-script"
_MARK = "muster"
RESULTS = {
    "failed": "Failed",
    "passed": "Passed",
    "skipped": "Skipped",
    "xfailed": "Expected failures",
    "xpassed": "Unexpected passes",
    "error": "Errors",
    "rerun": "Reruns",
}
_COLUMNS = (("result", "Result"), ("testId", "Test"), ("duration", "Duration"))


@dataclass(frozen=True)
class PytestTable:
    """The data of pytest-html: its rows as plain data, its outcome counts, and its script, byte for byte."""

    data: Mapping[str, Any]
    counts: Mapping[str, int]
    script: str
    run_count: str


class _Reader(HTMLParser):
    """Takes the JSON attribute, the script, the counts and the one sentence out of a pytest-html page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blob = ""
        self.scripts: list[tuple[str, list[str]]] = []
        self.counts: dict[str, int] = {}
        self.sentence: list[str] = []
        self._inside = ""
        self._result = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if given.get("id") == "data-container":
            self.blob = given.get("data-jsonblob", "")
        elif tag == "script":
            self.scripts.append((given.get("id", ""), []))
            self._inside = "script"
        elif tag == "input" and "data-test-result" in given:
            self._result = given["data-test-result"]
        elif tag == "span" and self._result:
            self._inside = "count"
        elif given.get("class") == "run-count":
            self._inside = "sentence"

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1][1].append(data)
        elif self._inside == "count":
            number = data.strip().split(" ")[0].replace(",", "")
            self.counts[self._result] = int(number) if number.isdigit() else 0
            self._result = ""
        elif self._inside == "sentence":
            self.sentence.append(data)


def read(page: str) -> PytestTable | None:
    """The table of a page that pytest-html, or this project, wrote; None where it holds none."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    scripts = ["".join(pieces) for name, pieces in reader.scripts if name == SCRIPT_ID]
    scripts = scripts or ["".join(pieces) for name, pieces in reader.scripts if not name]
    try:
        data = json.loads(reader.blob)
        if not scripts or not isinstance(data["tests"], dict):
            return None
    except (ValueError, KeyError, TypeError):
        return None
    return PytestTable(data, reader.counts, scripts[-1], "".join(reader.sentence).strip())


def section(table: PytestTable | None, why_none: str) -> Html:
    """The table's place in the page; `why_none` is shown where there is no table."""
    heading = h("h2", "pytest's own table")
    if table is None:
        return h("section", heading, h("p", why_none, cls="nothing"), id="pytest")
    return h(
        "section",
        heading,
        h("p", h("span", table.run_count, cls="run-count"), " With captured output and tracebacks.", cls="hint"),
        h(
            "noscript",
            h("p", "This table needs scripts; the section above shows the same assertions without.", cls="hint"),
        ),
        h("details", h("summary", "Show the table"), _scaffold(table), cls="pytest-html"),
        id="pytest",
    )


def _scaffold(table: PytestTable) -> Html:
    """Every element that pytest-html's script looks for, with labels that its own page lacks."""
    blob = json.dumps(_harmless(table.data), ensure_ascii=False, separators=(",", ":"))
    return h(
        "div",
        _filters(table.counts),
        h(
            "div",
            h(
                "table",
                h("caption", "pytest's own table", cls="hidden-label"),
                h("thead", h("tr", _heads()), id="results-table-head"),
                id="results-table",
            ),
            cls="scroll",
            tabindex="0",
            role="region",
            aria_label="pytest's own table",
        ),
        h(
            "div",
            h("h3", "Environment"),
            id="environment-header",
        ),
        h("table", h("tbody"), id="environment"),
        raw(_TEMPLATES),
        h("div", id="data-container", data_jsonblob=blob),
    )


def _filters(counts: Mapping[str, int]) -> Html:
    boxes = [
        h(
            "label",
            h(
                "input",
                type="checkbox",
                cls="filter",
                name="filter_checkbox",
                data_test_result=result,
                checked=True,
                disabled=not counts.get(result),
            ),
            h("span", f"{counts.get(result, 0)} {label}", cls=result),
            hidden=not counts.get(result),
        )
        for result, label in RESULTS.items()
    ]
    buttons = [
        h("button", "Show all details", id="show_all_details", type="button"),
        h("button", "Hide all details", id="hide_all_details", type="button"),
    ]
    return h("div", boxes, buttons, cls="controls")


def _heads() -> list[Html]:
    sortable = [h("th", label, cls="sortable", data_column_type=name, scope="col") for name, label in _COLUMNS]
    return [*sortable, h("th", "Links", scope="col")]


def _harmless(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data with every text in it escaped, because pytest-html's script writes all of it as HTML.

    Data that went through here before is marked and left as it is: nothing is escaped twice.
    """
    if data.get(_MARK):
        return data
    return {
        _MARK: True,
        "environment": {text(key): _plain(value) for key, value in dict(data.get("environment", {})).items()},
        "renderCollapsed": ["all"],
        "initialSort": "original" if len(data["tests"]) > MOST_ROWS else "result",
        "title": text(data.get("title", "")),
        "tests": _rows(data),
    }


def _plain(value: object) -> str:
    """An environment value on one line; of a map pytest-html's script makes a list that is not valid HTML."""
    if isinstance(value, Mapping):
        return ", ".join(f"{text(key)} {_plain(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return text(value)


def _rows(data: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows, escaped again from their ids; folded to one a phase where there are too many of them."""
    rows = [(str(nodeid), dict(one)) for nodeid, tests in data["tests"].items() for one in tests]
    if len(rows) > MOST_ROWS:
        return _folded(rows)
    kept: dict[str, list[dict[str, Any]]] = {}
    for nodeid, one in rows:
        kept.setdefault(nodeid, []).append(_row(nodeid, one))
    return kept


def _row(nodeid: str, one: Mapping[str, Any]) -> dict[str, Any]:
    result = str(one.get("result", "Error"))
    shown = result if result.lower() in RESULTS else "Error"
    # pytest-html appends the stage to the id of a row that is not of the call itself.
    stage = str(one.get("testId", "")).rpartition("::")[2]
    label = text(f"{nodeid}::{stage}" if stage in ("setup", "teardown", "collect") else nodeid)
    duration = text(one.get("duration", ""))
    links, extras = _links(one.get("extras", ()))
    cells = [
        f'<td class="col-result">{text(shown)}</td>',
        f'<td class="col-testId">{label}</td>',
        f'<td class="col-duration">{duration}</td>',
        f'<td class="col-links">{links}</td>',
    ]
    kept = {"result": shown, "testId": label, "duration": duration, "resultsTableRow": cells}
    # The log is the one text that pytest-html escapes itself (basereport.py: _process_logs).
    return {**kept, "extras": extras, "log": str(one.get("log", ""))}


def _links(extras: Iterable[Mapping[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """Extras with their names escaped and only harmless addresses; live HTML among them becomes text."""
    links: list[str] = []
    kept: list[dict[str, Any]] = []
    for extra in extras:
        kind, content = str(extra.get("format_type", "")), str(extra.get("content", ""))
        name = text(extra.get("name", kind))
        inline = content.startswith("data:")
        if kind in ("text", "json", "url") and (inline or safe_url(content) == content):
            href = text(content)
            links.append(f'<a target="_blank" rel="noreferrer noopener" href="{href}">{name}</a> ')
        elif kind == "image" and content.startswith("data:image/"):
            kept.append({"name": name, "format_type": "image", "content": content})
        elif kind == "html":
            kept.append({"name": name, "format_type": "html", "content": f"<pre>{text(content)}</pre>"})
    return "".join(links), kept


def _folded(rows: list[tuple[str, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """One row a module, and the first failures in full; every test has its line in the section above."""
    modules: dict[str, Counter[str]] = {}
    for nodeid, one in rows:
        modules.setdefault(nodeid.partition("::")[0], Counter())[str(one.get("result", "Error"))] += 1
    kept: dict[str, list[dict[str, Any]]] = {}
    for module, counted in modules.items():
        worst = next((name for name in ("Error", "Failed", "Passed", "Skipped") if counted[name]), "Passed")
        said = ", ".join(f"{count} {name.lower()}" for name, count in counted.items())
        label = f"{module} ({sum(counted.values())} tests)"
        kept[label] = [_row(label, {"result": worst, "duration": "", "testId": label, "log": escape(said)})]
    failures = [(nodeid, one) for nodeid, one in rows if one.get("result") in ("Failed", "Error")]
    for nodeid, one in failures[:MOST_FAILURES]:
        kept.setdefault(nodeid, []).append(_row(nodeid, one))
    return kept


_TEMPLATES = """<template id="template_environment_row"><tr><td></td><td></td></tr></template>
<template id="template_results-table__body--empty"><tbody class="results-table-row"><tr id="not-found-message">
<td colspan="4">No results found. Check the filters.</td></tr></tbody></template>
<template id="template_results-table__tbody"><tbody class="results-table-row"><tr class="collapsible"></tr>
<tr class="extras-row"><td class="extra" colspan="4"><div class="extraHTML"></div><div class="media">
<div class="media-container"><div class="media-container__nav--left">&lt;</div>
<div class="media-container__viewport">
<img alt="" /><video controls><source type="video/mp4"></video></div>
<div class="media-container__nav--right">&gt;</div></div><div class="media__name"></div>
<div class="media__counter"></div></div><div class="logwrapper"><div class="logexpander"></div>
<div class="log"></div></div></td></tr></tbody></template>"""
