"""Files written whole or not at all, and the scan that every one of them passes before a run is over."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fixtures import journal
from fixtures.journal import digest
from fixtures.secret import Secret
from reports.redaction import Redactor

# What the scan plants to see whether it would have found anything: it never stands in a file.
_CONTROL = "positive-control-7f3c9a51e2d84b60"


@dataclass(frozen=True)
class Problem:
    """A file that could not be written, or that held a secret; `what` is a sentence for a person."""

    path: Path
    what: str

    def __str__(self) -> str:
        return f"{self.path.name}: {self.what}"


def write(path: Path, text: str) -> None:
    """Put the text there in one step: a reader sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, replacing the one that was there in one step."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent))
    temporary.replace(link)


def scan(paths: Iterable[Path], redactor: Redactor) -> list[Problem]:
    """Look for every known secret in the finished bytes, take out what is found, and say where it was.

    The scan proves itself first: a control value, registered like a secret, must be found in a text that holds
    it. A scan that would not have found anything is reported as a problem of its own.
    """
    problems = []
    control = Redactor([Secret(_CONTROL, where="control")])
    if not control.leaks(f"x{_CONTROL[3:-3]}y") or control.leaks("nothing here"):
        problems.append(
            Problem(Path("scan"), "the scan for secrets does not find what was planted; trust no file")
        )
    for path in paths:
        try:
            text = path.read_bytes().decode("utf-8", "replace")
            leaked = redactor.leaks(text)
            if not leaked:
                continue
            problems.append(
                Problem(path, f"held {', '.join(leaked)}; taken out, and the secret should be renewed")
            )
            if path.name == journal.FILE_NAME:
                _redact_journal(path, redactor)
            else:
                write(path, redactor.clean(text))
        except OSError as cause:
            problems.append(Problem(path, f"cannot be scanned: {cause.strerror}"))
    return problems


def _redact_journal(path: Path, redactor: Redactor) -> None:
    """Take a secret out of a finished journal, chain its lines anew, and say so in a last line.

    A record that was edited shows, and this one was edited: the note is the honest trace of it.
    """
    lines, prev, altered = [], journal.GENESIS, []
    for line in journal.read(path).lines:
        kept = redactor.clean_value({key: value for key, value in line.items() if key not in ("prev", "hash")})
        if any(kept[key] != line[key] for key in kept):
            altered.append(line["seq"])
        lines.append(kept)
    told = (
        "Secrets were taken out of lines "
        + ", ".join(map(str, altered))
        + " after the run; the chain was made anew."
    )
    stamped = {"at": journal.utc_now(), "t": lines[-1].get("t", 0) if lines else 0}
    lines.append({"seq": len(lines), **stamped, "type": "note", "text": told})
    text = []
    for line in lines:
        line["prev"] = prev
        line["hash"] = prev = digest(line)
        text.append(json.dumps(line, ensure_ascii=False))
    write(path, "\n".join(text) + "\n")
