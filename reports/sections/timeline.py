"""The run as a picture: phases as bars, waits inside them, changes and verdicts on them, on one axis of time.

Drawn as inline SVG with presentation by class names only (the page's policy allows no style attribute). What it
shows is also written below it, because a picture is not read aloud and does not print at every size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from fixtures.journal.kinds import change_title
from fixtures.journal.run_record import RunRecord
from fixtures.journal.words import clock, plural, span
from reports.html_safety import Html, h
from reports.parts import heading

WIDTH, LEFT, RIGHT, ROW, TOP = 1000, 130, 76, 36, 26
# A verdict's name is written beside its mark unless the one before it is nearer than this.
NAME_GAP = 70.0
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
# Marks nearer than this are drawn as one.
MARK_GAP = 5.0


_VERDICTS = {True: ("green", "green"), False: ("red", "red"), None: ("no verdict", "none")}


@dataclass(frozen=True)
class Lane:
    """One row of the picture: a phase, or the undo after the phases."""

    label: str
    start: float
    end: float
    open: bool


def timeline(record: RunRecord) -> Html:
    return h(
        "section",
        heading("Timeline", "timeline"),
        h("div", picture(record), cls="scroll", tabindex="0", role="region", aria_label="Timeline")
        if record.started and record.phases
        else h("p", _without_phases(record), cls="nothing"),
        _key() if record.started and record.phases else None,
        _words(record),
        id="timeline",
    )


def _without_phases(record: RunRecord) -> str:
    return "A recovery has no phases." if record.mode == "recover" else "The run ended before its first phase."


def picture(record: RunRecord) -> Html:
    assert record.started is not None
    zero = record.started.timestamp()
    last = (record.last_seen or record.started).timestamp() - zero
    total = max(last, record.wall_s, 0.001)
    lanes = _lanes(record, zero, total)

    def scale(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(at, 0.0), total) / total

    height = TOP + ROW * len(lanes) + 8
    return h(
        "svg",
        h("title", _said(record)),
        _axis(zero, total, height, scale),
        [_lane(lane, TOP + ROW * index, scale) for index, lane in enumerate(lanes)],
        _waits(record, lanes, zero, scale),
        _marks(record, lanes, zero, scale),
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_label=_said(record),
        cls="night",
    )


def _lanes(record: RunRecord, zero: float, total: float) -> list[Lane]:
    lanes = []
    for phase in record.phases:
        start, end = _since(phase.started, zero), _since(phase.ended, zero)
        if start is None:
            continue
        lanes.append(Lane(f"{phase.number} {phase.name}", start, total if end is None else end, end is None))
    if record.undo_began:
        began = _since(record.undo_began, zero) or 0.0
        lanes.append(Lane("undo", began, max(total, began), not record.finished))
    return lanes


def _axis(zero: float, total: float, height: int, scale: Callable[[float], float]) -> list[Html]:
    step = next((step for step in _STEPS if total / step <= 9), _STEPS[-1])
    drawn = []
    count = int(total / step) + 1
    offset = step - zero % step if step >= 1 else 0.0
    ticks = [offset + step * index for index in range(count)]
    for at in ticks:
        if at > total:
            continue
        x = f"{scale(at):.1f}"
        drawn.append(h("line", x1=x, y1=TOP - 6, x2=x, y2=height - 4, cls="grid"))
        drawn.append(h("text", _tick(zero + at, at, step), x=x, y=13, text_anchor="middle", cls="tick"))
    return drawn


def _tick(epoch: float, elapsed: float, step: float) -> str:
    if step < 1:
        return f"+{elapsed:.1f} s"
    at = datetime.fromtimestamp(round(epoch), UTC)
    return at.strftime("%H:%M") if step >= 60 else at.strftime("%H:%M:%S")


def _lane(lane: Lane, y: int, scale: Callable[[float], float]) -> list[Html]:
    x, end = scale(lane.start), scale(lane.end)
    width = max(end - x, 1.5)
    took = span(lane.end - lane.start)
    return [
        h("text", lane.label, x=LEFT - 12, y=y + 19, text_anchor="end", cls="label"),
        h("line", x1=LEFT, y1=y + ROW, x2=WIDTH - RIGHT, y2=y + ROW, cls="rule"),
        h(
            "rect",
            h("title", f"{lane.label}: {took}" + (", interrupted" if lane.open else "")),
            x=f"{x:.1f}",
            y=y + 8,
            width=f"{width:.1f}",
            height=14,
            rx=2,
            cls="bar cut" if lane.open else "bar",
        ),
        h("text", took, x=f"{min(x + width + 7, WIDTH - RIGHT + 7):.1f}", y=y + 19, cls="took"),
    ]


def _waits(record: RunRecord, lanes: list[Lane], zero: float, scale: Callable[[float], float]) -> list[Html]:
    drawn = []
    for wait in record.waits:
        start = _since(wait.started, zero)
        if start is None or wait.seconds <= 0:
            continue
        row = _row_of(lanes, start + wait.seconds / 2)
        if row is None:
            continue
        x, end = scale(start), scale(start + wait.seconds)
        if end - x < 0.8:
            continue
        y = TOP + ROW * row
        limit = f" of at most {span(wait.limit_s)}" if wait.limit_s else ""
        drawn.append(
            h(
                "rect",
                h("title", f"waited {span(wait.seconds)}{limit}: {wait.what} ({wait.result})"),
                x=f"{x:.1f}",
                y=y + 11,
                width=f"{end - x:.1f}",
                height=8,
                cls="wait late" if wait.result == "timed-out" else "wait",
            )
        )
    return drawn


def _marks(record: RunRecord, lanes: list[Lane], zero: float, scale: Callable[[float], float]) -> list[Html]:
    """Changes as triangles above their bar, verdicts as circles on it; crowded ones are drawn as one."""
    drawn: list[Html] = []
    last: dict[tuple[int, str], float] = {}
    for at, kind, title, name in _events(record, zero):
        row = _row_of(lanes, at)
        if row is None:
            continue
        x, y = scale(at), TOP + ROW * row
        if x - last.get((row, kind), -99.0) < MARK_GAP:
            continue
        last[row, kind] = x
        if kind in ("change", "change undone", "change open"):
            shape = h("path", h("title", title), d=f"M{x - 4:.1f} {y + 1}h8l-4 7z", cls=kind)
        else:
            shape = h("circle", h("title", title), cx=f"{x:.1f}", cy=y + 15, r=5, cls=kind)
        drawn.append(shape)
        if name and x - last.get((row, "name"), -99.0) >= NAME_GAP:
            last[row, "name"] = x
            drawn.append(h("text", name, x=f"{x:.1f}", y=y + 33, text_anchor="middle", cls="name"))
    return drawn


def _events(record: RunRecord, zero: float) -> list[tuple[float, str, str, str]]:
    """Time, kind of mark, title and label of each event."""
    events = []
    for change in record.changes:
        at = _since(change.at, zero)
        if at is not None:
            cut = change.is_open
            kind = "change undone" if change.undone else "change open" if cut else "change"
            title = f"{clock(change.at)} change {change.id}: {change_title(change.kind)} {change.target}"
            events.append((at, kind, title, ""))
    for verdict in record.verdicts:
        at = _since(verdict.verdict_at, zero)
        if at is not None and at >= 0:
            word, kind = _VERDICTS[verdict.green]
            title = f"{clock(verdict.verdict_at)} {verdict.recipe}: {word}"
            events.append((at, f"verdict {kind}", title, verdict.recipe))
    return sorted(events)


def _row_of(lanes: list[Lane], at: float) -> int | None:
    inside = [row for row, lane in enumerate(lanes) if lane.start <= at <= lane.end]
    if inside:
        return inside[-1]
    before = [row for row, lane in enumerate(lanes) if lane.start <= at]
    return before[-1] if before else (0 if lanes else None)


def _since(at: datetime | None, zero: float) -> float | None:
    return at.timestamp() - zero if at else None


def _key() -> Html:
    items = [
        ("bar", "phase"),
        ("wait", "waiting"),
        ("change", "change"),
        ("green", "green verdict"),
        ("red", "red verdict"),
    ]
    return h(
        "ul",
        [h("li", h("i", cls=f"k-{name}", aria_hidden="true"), text) for name, text in items],
        cls="legend",
    )


def _said(record: RunRecord) -> str:
    longest = max(record.phases, key=lambda phase: phase.wall_s, default=None)
    most = f"; longest was phase {longest.number}, {longest.name}, with {span(longest.wall_s)}" if longest else ""
    return f"{plural(len(record.phases), 'phase')} in {span(record.wall_s)}{most}."


def _words(record: RunRecord) -> Html | None:
    """The longest waits, in words; together they are most of a run."""
    longest = sorted(record.waits, key=lambda wait: -wait.seconds)[:5]
    if not longest:
        return None
    waited = sum(wait.seconds for wait in record.waits)
    rows = [
        h(
            "tr",
            h("td", wait.what),
            h("td", span(wait.seconds), cls="num"),
            h("td", span(wait.limit_s) if wait.limit_s else "", cls="num"),
            h("td", wait.result if not wait.last_seen else f"{wait.result}: {wait.last_seen}"),
        )
        for wait in longest
    ]
    heads = ("Longest waits", "Took", "Limit", "Ended")
    return h(
        "div",
        h(
            "div",
            h(
                "table",
                h("thead", h("tr", [h("th", head, scope="col") for head in heads])),
                h("tbody", rows),
                cls="plain waits",
            ),
            cls="scroll",
        ),
        h(
            "p",
            f"{span(waited)} of waiting in {plural(len(record.waits), 'wait')}"
            + (", some of them at the same time." if len(record.waits) > 1 else "."),
            cls="hint",
        ),
    )
