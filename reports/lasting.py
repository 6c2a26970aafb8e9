"""How long each finding has stood, and whether a night has anything to say about it.

A sweep that writes every night about the same thing is read for a week. So what is known of a finding is carried
from night to night, in the issue that tells of it or in a file beside the runs: since when it is seen, on how
many nights, and on which night something was last said. It does not come from the run history, which is pruned.

A night is from noon to noon, UTC: a sweep that starts now before and now after midnight neither skips a night nor
counts one twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any


class News(StrEnum):
    """What became of one finding tonight."""

    NEW = "new"
    BACK = "back"
    CHANGED = "changed"
    STILL = "still there"
    HEALED = "healed"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Lasting:
    """What is known of one finding; dates are nights, ``2026-06-02``.

    `said` is the night of the last message, `digest` stands for its words then, `mode` for the run that saw it
    last.
    """

    since: str
    nights: int
    last: str
    said: str
    digest: str
    mode: str
    healed: bool = False

    def in_words(self) -> str:
        """``seen on 3 nights since the night of 2026-06-01``."""
        if self.nights == 1:
            return f"seen on one night, {self.since}"
        return f"seen on {self.nights} nights since the night of {self.since}"

    def plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Turn:
    """One finding's next state; `speaks` is whether a message may be made of it tonight."""

    lasting: Lasting
    news: News
    speaks: bool


def night_of(started: datetime) -> str:
    """The night that a moment (aware, UTC) belongs to, by the day on which it began."""
    return (started - timedelta(hours=12)).date().isoformat()


def seen(old: Lasting | None, *, digest: str, night: str, mode: str) -> Turn:
    """The finding was seen tonight."""
    fresh = Lasting(since=night, nights=1, last=night, said=night, digest=digest, mode=mode)
    if old is None:
        return Turn(fresh, News.NEW, speaks=True)
    speaks = old.said != night
    if old.healed:
        return Turn(fresh, News.BACK, speaks=speaks)
    counted = replace(old, nights=old.nights + (night > old.last), last=max(night, old.last), mode=mode)
    if digest == old.digest or not speaks:
        # Words that changed twice on one night are said on the next one: the old digest stays until then.
        return Turn(counted, News.STILL, speaks=False)
    return Turn(replace(counted, digest=digest, said=night), News.CHANGED, speaks=True)


def unseen(old: Lasting, *, night: str, looked: bool) -> Turn:
    """The finding was not seen tonight; `looked` says whether this run would have seen it."""
    if old.healed or not looked:
        return Turn(old, News.NOTHING, speaks=False)
    return Turn(replace(old, healed=True, said=night), News.HEALED, speaks=old.said != night)


def read(raw: object) -> Lasting | None:
    """What is known of a finding, as it was kept, or None for what a person or an accident made of it."""
    if not isinstance(raw, Mapping):
        return None
    texts = {name: raw.get(name) for name in ("since", "last", "said", "digest", "mode")}
    nights, healed = raw.get("nights"), raw.get("healed")
    if not all(isinstance(one, str) and len(one) <= 64 for one in texts.values()):
        return None
    if isinstance(nights, bool) or not isinstance(nights, int) or nights < 1 or not isinstance(healed, bool):
        return None
    try:
        for name in ("since", "last", "said"):
            date.fromisoformat(str(texts[name]))
    except ValueError:
        return None
    return Lasting(**{name: str(one) for name, one in texts.items()}, nights=nights, healed=healed)
