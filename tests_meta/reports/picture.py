"""``python -m tests_meta.reports.picture [RUN]``: make the picture in README.md from a run's report.

RUN is a folder or ``latest`` (the default). The page is shown in a window of 1280 by 1420 pixels, in light colours.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import ViewportSize, sync_playwright

from fixtures.journal.past_runs import find_run
from tests_meta.muster_runs import ROOT
from tests_meta.reports.test_report_browser import CHROMIUM, QUIET

PICTURE = ROOT / "reports" / "example.png"
SIZE = ViewportSize(width=1280, height=1420)


def take_picture(report: Path, picture: Path) -> None:
    """Write the top of the page as a PNG."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(report.as_uri())
        page.screenshot(path=picture)
        browser.close()


def main(arguments: list[str]) -> int:
    run = find_run(arguments[0] if arguments else "latest", ROOT / "reports")
    if run is None:
        print("no such run; make one with: pytest phases/", file=sys.stderr)
        return 4
    take_picture(run / "report.html", PICTURE)
    print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
