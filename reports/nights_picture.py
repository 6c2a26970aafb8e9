"""The last ninety nights of a system as a picture: how long each took, how many recipes were green, what was found.

Inline SVG like the timeline's, presentation by class names only. A night is the last run of a day that checks
everything; a day without one is a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from fixtures.journal.kinds import Severity
from fixtures.journal.past_runs import COMPLETE_MODES, PastRun
from fixtures.journal.words import day, plural, span
from reports.html_safety import Html, h
from reports.words import verdict_word

NIGHTS = 90
# A short history is not stretched over fewer days than this.
FEWEST = 30
LEFT, INNER, RIGHT = 78, 900, 76
# Each lane: its name, its top, and the height of its highest bar.
LANES = (("took", 8, 40), ("green", 60, 40), ("findings", 112, 30))
HEIGHT = 164


def nights_picture(its: Sequence[PastRun], *, of: str) -> Html | None:
    """The picture; None without a run that checked everything. `its` are runs of the system `of`, latest first."""
    nights = _by_day(its)
    if not nights:
        return None
    last = max(nights)
    count = min(NIGHTS, max(FEWEST, (last - min(nights)).days + 1))
    days = [last - timedelta(days=back) for back in range(count - 1, -1, -1)]
    shown = [run for at, run in nights.items() if at >= days[0]]
    most = {
        "took": max(run.wall_s for run in shown) or 1.0,
        "green": max(max((run.expected for run in shown), default=0), 1),
        "findings": max(max(_urgent(run) for run in shown), 1),
    }
    width, step = LEFT + INNER + RIGHT, INNER / count
    label = _label(shown)
    return h(
        "div",
        h(
            "svg",
            h("title", label),
            [_lane(name, top, height, most[name], width) for name, top, height in LANES],
            [
                _night(LEFT + step * place, step, nights[at], most)
                for place, at in enumerate(days)
                if at in nights
            ],
            _dates(days, step),
            viewBox=f"0 0 {width} {HEIGHT}",
            role="img",
            aria_label=label,
            cls="ninety",
        ),
        cls="scroll",
        tabindex="0",
        role="region",
        aria_label=f"The last nights of {of} as a picture",
    )


def _by_day(its: Sequence[PastRun]) -> dict[date, PastRun]:
    """The last finished run of each day that checks everything."""
    found: dict[date, PastRun] = {}
    for run in its:
        if run.started and run.finished and run.whole and run.mode in COMPLETE_MODES:
            found.setdefault(run.started.date(), run)
    return found


def _urgent(run: PastRun) -> int:
    return sum(severity != Severity.INFO for _, severity, _ in run.findings)


def _greens(run: PastRun) -> int:
    return sum(green is True for green in run.green.values())


def _label(shown: Sequence[PastRun]) -> str:
    longest = max(shown, key=lambda run: run.wall_s)
    bad = sum(verdict_word(run.verdict).tone != "good" for run in shown)
    greens = [_greens(run) for run in shown]
    return (
        f"{plural(len(shown), 'night')}: {bad} not good; the longest took {span(longest.wall_s)}; "
        f"{min(greens)} to {max(greens)} recipes green; at most {max(map(_urgent, shown))} findings."
    )


def _lane(name: str, top: int, height: int, most: float, width: int) -> list[Html]:
    highest = span(most) if name == "took" else f"{most:.0f}"
    return [
        h("text", name, x=LEFT - 10, y=top + height, text_anchor="end", cls="label"),
        h("text", highest, x=width - RIGHT + 6, y=top + 9, cls="tick"),
        h("line", x1=LEFT, y1=top + height + 0.5, x2=width - RIGHT, y2=top + height + 0.5, cls="rule"),
    ]


def _night(left: float, step: float, run: PastRun, most: dict[str, float]) -> Html:
    """One column: three bars, whose title says everything about the night in words."""
    values = {"took": run.wall_s, "green": float(_greens(run)), "findings": float(_urgent(run))}
    tone = verdict_word(run.verdict).tone
    said = (
        f"{day(run.started)}: {verdict_word(run.verdict).headline}, {span(run.wall_s)}, {_greens(run)} green, "
        f"{plural(_urgent(run), 'finding')}"
    )
    bars = []
    for name, top, height in LANES:
        tall = height * values[name] / most[name]
        tall = max(tall, 1.5) if values[name] or name == "took" else 0.0
        colour = {"took": tone, "green": "g", "findings": "f"}[name]
        y = f"{top + height - tall:.1f}"
        x, width = f"{left + step * 0.1:.1f}", f"{step * 0.8:.1f}"
        bars.append(h("rect", x=x, y=y, width=width, height=f"{tall:.1f}", cls=colour))
    return h("g", h("title", said), bars)


def _dates(days: Sequence[date], step: float) -> list[Html]:
    """The first day of each month, and the last day of all."""
    room = 80 / step
    marks = [(index, at) for index, at in enumerate(days) if at.day == 1 and index < len(days) - room]
    return [
        h(
            "text",
            f"{at:%Y-%m-%d}",
            x=f"{LEFT + step * (index + 0.5):.1f}",
            y=HEIGHT - 6,
            text_anchor="middle",
            cls="tick",
        )
        for index, at in [*marks, (len(days) - 1, days[-1])]
    ]
