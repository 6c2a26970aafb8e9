"""The table of infrastructure failures: each row matches its own message and nothing that a broken recipe writes."""

from __future__ import annotations

import pytest

from fixtures.verdicts.infrastructure_failures import MOST_SHOWN, TABLE, failure_of_record, find_failure

REGISTRY = "https://registry-1.docker.io/v2/"
INFRASTRUCTURE = [
    ("registry-limit", "toomanyrequests: You have reached your pull rate limit. You may increase the limit by"),
    ("registry-limit", "Error: You have reached your unauthenticated pull rate limit. https://www.docker.com/"),
    ("registry-unreachable", f'Error response from daemon: Get "{REGISTRY}": net/http: TLS handshake timeout'),
    (
        "registry-unreachable",
        f'Get "{REGISTRY}": dial tcp: lookup registry-1.docker.io on 1.1.1.1:53: no such host',
    ),
    (
        "registry-unreachable",
        f'Head "{REGISTRY}library/postgres/manifests/10": dial tcp 1.2.3.4:443: i/o timeout',
    ),
    ("registry-unreachable", f"Get {REGISTRY}: x509: certificate has expired or is not yet valid"),
    ("registry-unreachable", 'Get "https://auth.docker.io/token?service=registry.docker.io": EOF'),
    ("registry-broken", "received unexpected HTTP status: 503 Service Unavailable"),
    ("network-full", "Failed allocation for service x: could not find an available IP while allocating VIP"),
    ("tasks-stuck", "ab12 ghost_app.1 ghost:5 nixos Running  New 12 minutes ago"),
    ("tasks-stuck", "ab12 ghost_db.1 mysql:8 Running  Pending about an hour ago"),
    ("no-resources", '"no suitable node (insufficient resources on 1 node)"'),
    ("disk-full", "write /var/lib/docker/tmp/GetImageBlob: no space left on device"),
    ("disk-full", "OSError: [Errno 28] No space left on device"),
    ("out-of-memory", "kernel: Out of memory: Killed process 4711 (mysqld)"),
    ("out-of-memory", "bash: fork: retry: Resource temporarily unavailable"),
    ("load", "INFO: task mysqld:4711 blocked for more than 120 seconds."),
    ("docker-gone", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?"),
    ("runner-lost", "the runner was lost"),
    (
        "forge-unreachable",
        "fatal: unable to access 'https://git.example.org/a/b.git/': Could not resolve host: git",
    ),
    ("forge-unreachable", "fatal: unable to access 'https://h/a.git/': The requested URL returned error: 502"),
]
RECIPE = [
    "clickhouse: error: connection refused",
    'plausible_events_db.1  Failed 3 minutes ago  "task: non-zero exit (210)"',
    "ab12 ghost_app.1 ghost:5 nixos Running  New 1 second ago",
    "ab12 ghost_app.1 ghost:5 nixos Running  Running 12 minutes ago",
    "E   urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>",
    'could not translate host name "db" to address: no such host',
    "no such table: ci_marker",
    "HTTP/1.1 429 Too Many Requests from the app under test",
    "dial tcp 10.0.1.5:5432: i/o timeout",
    "no suitable node (scheduling constraints not satisfied on 1 node)",
    "manifest for ghost:99 not found: manifest unknown: manifest unknown",
    "fatal: remote error: upload-pack: not our ref ffff",
    "fatal: unable to access 'https://h/a.git/': The requested URL returned error: 404",
    "test_front.py::test_front FAILED: timed out after 300 s",
    "a New York minute ago, Pending review",
]


@pytest.mark.parametrize(
    ("name", "line"), INFRASTRUCTURE, ids=[f"{n}-{i}" for i, (n, _) in enumerate(INFRASTRUCTURE)]
)
def test_a_failure_is_found_by_its_message(name: str, line: str) -> None:
    """In the middle of a log, and only by its own row."""
    found = find_failure(f"+ cc-ci-run runner/run_recipe_ci.py\n{line}\nlevel 0\n")
    assert found is not None
    assert found.name == name
    assert found.words in " ".join(line.split())


@pytest.mark.parametrize("line", RECIPE)
def test_messages_of_a_broken_recipe_do_not_match(line: str) -> None:
    """A recipe whose service is down, whose test fails or whose image does not exist is red by its own fault."""
    assert find_failure(f"deployed\n{line}\nlevel 0\n") is None


def test_every_row_has_an_example_and_names_its_source() -> None:
    """A row without an example that matches would be a guess."""
    assert {row.name for row in TABLE} == {name for name, _ in INFRASTRUCTURE}
    assert len({row.name for row in TABLE}) == len(TABLE)
    assert all(len(row.source) > 15 and len(row.means) > 10 for row in TABLE)


def test_only_the_matching_text_of_a_log_is_kept() -> None:
    """The rest of a log may hold secrets."""
    found = find_failure("password=hunter2 No space left on device password=hunter2\n")
    assert found is not None
    assert found.words == "No space left on device"
    long = find_failure("toomanyrequests: " + "x" * 10_000)
    assert long is not None
    assert len(long.words) <= MOST_SHOWN


def test_a_long_log_is_searched_quickly() -> None:
    """Ten megabytes of a line that nearly matches do not hang the run."""
    assert find_failure('Get "https://h/v2/": ' + "a" * 5_000_000 + "\n" + "New 1 " * 500_000) is None


def test_a_recorded_failure_needs_its_row_in_the_table() -> None:
    """A failure that an older table recorded is ignored if its row is gone; the build then counts as any red."""
    assert failure_of_record("no-such-row", "words") is None
    kept = failure_of_record("disk-full", "words")
    assert kept is not None
    assert kept.words == "words"
