"""No secret in any file of a run or on the console; a real pytest leaks them in more than 25 ways."""

from __future__ import annotations

import base64
import json
import random
import string
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given
from hypothesis import strategies as st

from fixtures.config.secret import Secret
from fixtures.journal import redaction
from fixtures.journal.reader import read
from fixtures.journal.redaction import MASK, Redactor
from fixtures.journal.writer import Journal
from reports import finish
from tests_meta.reports.report_suite import Outcome, Suite

# Each place has its own token, so that a leaked token identifies its place.
PLACES = (
    *("url_query", "url_userinfo", "header", "httpx_header", "environ", "argv", "called_process", "exception"),
    *("exception_cause", "assert_left", "assert_message", "local", "argument_long", "dict_repr", "skip_reason"),
    *("xfail_reason", "warning", "stdout_passing", "stderr_failing", "logging", "teardown", "setup_error"),
    *(
        "fixture_value",
        "user_property",
        "base64_text",
        "percent",
        "hex",
        "reversed",
        "json_escaped",
        "extra_html",
    ),
    *("bytes_repr", "subtest_text"),
)

TESTS = """
    import base64, json, logging, os, subprocess, sys, urllib.parse, warnings
    import httpx, pytest, pytest_html
    T = json.loads(os.environ["TOKENS"])
    PEM = os.environ["PEM"]
    RSA = os.environ["RSA"]
    for name, value in T.items():
        os.environ["PLANT_" + name] = value

    def test_url_query(): assert httpx.Request("GET", "https://h.example/x?token=" + T["url_query"]) == None
    def test_url_userinfo(): raise RuntimeError("no clone: https://bot:" + T["url_userinfo"] + "@h.example/r.git")
    def test_header(): assert {"Authorization": "token " + T["header"]} == {}
    def test_httpx_header():
        request = httpx.Request("GET", "https://h.example", headers={"X-Api-Key": T["httpx_header"]})
        assert request.headers == {}
    def test_environ(): assert os.environ["PLANT_environ"] == "x" and os.environ
    def test_argv(): assert ["git", "clone", T["argv"]] == []
    def test_called_process():
        subprocess.run([sys.executable, "-c", "raise SystemExit(3)", T["called_process"]], check=True)
    def test_exception(): raise ValueError(f"bad token {T['exception']!r}")
    def test_exception_cause():
        try:
            raise KeyError(T["exception_cause"])
        except KeyError as cause:
            raise ValueError("wrapped") from cause
    def test_assert_left(): assert T["assert_left"] == "other"
    def test_assert_message(): assert 1 == 2, "with " + T["assert_message"]
    def test_local():
        token = T["local"]
        assert not token
    def takes(long): raise RuntimeError("refused")
    def test_argument_long(): takes(T["argument_long"] * 9)
    def test_dict_repr(): assert repr({"password": T["dict_repr"]}) == ""
    def test_skip_reason(): pytest.skip("no access with " + T["skip_reason"])
    def test_xfail_reason(): pytest.xfail("known: " + T["xfail_reason"])
    def test_warning(): warnings.warn("deprecated token " + T["warning"])
    def test_stdout_passing(): print("using", T["stdout_passing"])
    def test_stderr_failing():
        print("using", T["stderr_failing"], file=sys.stderr)
        assert False
    def test_logging():
        logging.getLogger("x").warning("token %s", T["logging"])
        assert False
    @pytest.fixture
    def leaves():
        yield
        print("leaving", T["teardown"])
        raise RuntimeError(T["teardown"])
    def test_teardown(leaves): pass
    @pytest.fixture
    def breaks(): raise RuntimeError(T["setup_error"])
    def test_setup_error(breaks): pass
    @pytest.fixture
    def value(): return {"token": T["fixture_value"]}
    def test_fixture_value(value): assert value is None
    def test_user_property(record_property): record_property("token", T["user_property"])
    def test_base64_text():
        for before in ("", "a", "ab"):
            print(base64.b64encode((before + "user:" + T["base64_text"]).encode()).decode())
        assert False
    def test_percent(): assert urllib.parse.quote(T["percent"] + "/&=", safe="") == ""
    def test_hex(): print(T["hex"].encode().hex())
    def test_reversed(): print(T["reversed"][::-1])
    def test_json_escaped(): print(json.dumps({"a": json.dumps({"b": T["json_escaped"]})}))
    def test_extra_html(extras): extras.append(pytest_html.extras.html("<b>" + T["extra_html"] + "</b>"))
    def test_extra_text(extras): extras.append(pytest_html.extras.text("text " + T["extra_html"]))
    def test_bytes_repr(): assert T["bytes_repr"].encode() == b""
    def test_subtest_text(): pytest.fail("first line" + chr(10) + T["subtest_text"], pytrace=False)
    def test_pem(): assert PEM == ""
    def test_pem_lines():
        for line in PEM.splitlines(): print("    |", line)
    def test_rsa(): takes(RSA)
    def test_rsa_base64(): print(base64.b64encode(RSA.encode()).decode())
"""


@pytest.fixture(scope="module")
def planted() -> dict[str, str]:
    """A token for every place, in the usual formats of tokens."""
    chance = random.Random(20260602)
    hexes = {place: "".join(chance.choices("0123456789abcdef", k=40)) for place in PLACES}
    letters = "".join(chance.choices(string.ascii_letters, k=36))
    odd = {"percent": "Zq+/8%&=x Y9!'\"<>", "json_escaped": "p\"w\\d'-äöü-8f3kq", "header": f"ghp_{letters}"}
    return {**hexes, **odd, "header": f"ghp_{letters}"}


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    """Private keys of several lines, as in files."""
    ed = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    rsa = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {"PEM": ed.decode(), "RSA": rsa.decode()}


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory, planted: dict[str, str], keys: dict[str, str]) -> Outcome:
    """The result of the suite above, with all of its secrets registered."""
    suite = Suite(tmp_path_factory.mktemp("leaky"), TESTS)
    known = json.dumps([*planted.values(), *keys.values()])
    return suite.run("-v", "--showlocals", "-rA", env={"TOKENS": json.dumps(planted), **keys, "PLANTED": known})


def pieces(secret: str) -> set[str]:
    """Every piece of twelve characters of a secret; none of them may be shown."""
    lines = [line for line in secret.splitlines() if not line.startswith("-----")]
    return {line[at : at + 12] for line in lines for at in range(max(len(line) - 11, 1))}


def encodings(secret: str) -> set[str]:
    """A whole secret in other encodings."""
    data = secret.encode()
    plain = {secret, secret[::-1], data.hex(), quote(secret, safe=""), json.dumps(secret)[1:-1]}
    return plain | {base64.b64encode(b"x" * shift + data).decode()[4:-4] for shift in range(3)}


def leaked_pieces(text: str, secret: str) -> list[str]:
    return [piece for piece in pieces(secret) | encodings(secret) if len(piece) >= 8 and piece in text]


def test_every_place_was_run(leaky: Outcome) -> None:
    """At least 25 places hold a secret, and their tests passed, failed and were skipped."""
    assert len(PLACES) + 2 >= 25
    assert leaky.exit == 1
    outcomes = {line["outcome"] for line in read(leaky.run / "journal.jsonl").of("assertion")}
    assert outcomes == {"passed", "failed", "skipped"}


@pytest.mark.parametrize("place", [*PLACES, "PEM", "RSA"])
def test_no_secret_in_any_file_or_on_the_console(
    leaky: Outcome, planted: dict[str, str], keys: dict[str, str], place: str
) -> None:
    """No piece and no encoding of a secret is in any file of the run or in the output."""
    secret = {**planted, **keys}[place]
    files = {path.name: path.read_text(encoding="utf-8") for path in leaky.run.rglob("*") if path.is_file()}
    assert sorted(files) == ["journal.jsonl", "junit.xml", "report.html", "summary.json"]
    for name, content in {**files, "console": leaky.printed}.items():
        assert leaked_pieces(content, secret) == [], f"{place} leaked into {name}"


def test_unregistered_secrets_are_shown(tmp_path: Path, planted: dict[str, str], keys: dict[str, str]) -> None:
    """The same suite with unregistered secrets shows at least 25 of them (positive control)."""
    suite = Suite(tmp_path, TESTS)
    done = suite.run("-v", "--showlocals", "-rA", env={"TOKENS": json.dumps(planted), **keys, "PLANTED": "[]"})
    everything = done.printed + done.page + (done.run / "junit.xml").read_text()
    shown = {place for place, secret in {**planted, **keys}.items() if leaked_pieces(everything, secret)}
    assert len(shown) >= 25, sorted(set(planted) - shown)


def test_secret_formats_are_masked(tmp_path: Path) -> None:
    """Private keys, credentials in URLs and Authorization headers are masked without registration."""
    cleaned = Redactor().clean(
        "git clone https://bot:hunter2-hunter2@h.example/r\n"
        "{'authorization': 'token deadbeefdeadbeef'} Authorization: Bearer abc.def.ghi\n"
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\nBBBB\n-----END OPENSSH PRIVATE KEY-----"
    )
    assert all(word not in cleaned for word in ("hunter2", "deadbeef", "abc.def", "AAAA", "BBBB"))
    assert "https://bot:****@h.example/r" in cleaned


def test_ordinary_text_is_not_masked(planted: dict[str, str], keys: dict[str, str]) -> None:
    """Text without a secret does not change: hashes, URLs, other PEM headers, prose."""
    redactor = Redactor([Secret(value, where="x") for value in [*planted.values(), *keys.values()]])
    ordinary = (
        "commit 3f1c9e0d7b6a5f4e3d2c1b0a9f8e7d6c5b4a3f2e of https://forge.example.org/o/r/pulls/1?page=2\n"
        "-----BEGIN CERTIFICATE-----\nwait... for it … done\n expected 19, saw 18 (ssh root@host true)"
    )
    assert redactor.clean(ordinary) == ordinary
    assert redactor.leaks(ordinary) == []


@given(
    secret=st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=16, max_size=80),
    before=st.text(max_size=30),
    after=st.text(max_size=30),
    cut=st.integers(0, 60),
)
def test_any_piece_of_twelve_characters_is_masked(secret: str, before: str, after: str, cut: int) -> None:
    """Any twelve characters of a secret are found and masked anywhere in a text."""
    redactor = Redactor([Secret(secret, where="it")])
    piece = secret.strip()[cut % max(len(secret.strip()) - 11, 1) :][:12]
    text = f"{before} {piece} {after}"
    if len(piece) == 12:
        assert redactor.leaks(text) == ["it"]
        assert piece not in redactor.clean(text)
        assert redactor.leaks(redactor.clean(text)) == []


def test_shortened_secret_is_masked() -> None:
    """The remaining characters of a secret that pytest shortened with three dots are masked."""
    redactor = Redactor([Secret("0123456789abcdef0123456789abcdef01234567", where="t")])
    assert redactor.clean("{'t': '012345...34567'}") == f"{{'t': '{MASK}...{MASK}'}}"
    assert redactor.clean("and so on... then") == "and so on... then"


def test_too_short_secret_is_named() -> None:
    """A secret of three characters cannot be distinguished from text; it is listed in ``too_short``."""
    redactor = Redactor(
        [Secret("abc", where="MUSTER_PIN"), Secret("", where="EMPTY"), Secret("s3cr", where="OK")]
    )
    assert redactor.too_short == ["MUSTER_PIN"]
    assert redactor.clean("alphabet abc s3cr.") == f"alphabet abc {MASK}."


@given(
    secret=st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=12, max_size=40),
    data=st.recursive(
        st.none() | st.integers() | st.text(max_size=20) | st.sampled_from(["HERE", "QUOTED"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("HERE"), inner),
        max_leaves=8,
    ),
)
@example(secret='"' * 12, data=["QUOTED"])
def test_data_is_cleaned_as_each_of_its_strings_is(secret: str, data: object) -> None:
    """Data searched as one text is masked exactly where its strings are, also with quotes, backslashes and in keys."""
    redactor = Redactor([Secret(secret, where="it")])
    planted = _plant(data, secret)
    assert redactor.clean_value(planted) == redactor._clean_each(planted)


def _plant(data: object, secret: str) -> object:
    """The data with the secret in place of each mark."""
    if isinstance(data, list):
        return [_plant(one, secret) for one in data]
    if isinstance(data, dict):
        return {_plant(key, secret): _plant(one, secret) for key, one in data.items()}
    return {"HERE": f"with {secret} in it", "QUOTED": f"as {json.dumps(secret)}"}.get(str(data), data)


def test_cost_does_not_depend_on_the_number_of_secrets() -> None:
    """A scan is one pass over the text, for one secret and for a hundred."""
    chance = random.Random(1)
    secrets = [Secret("".join(chance.choices(string.ascii_letters, k=40)), where=f"s{n}") for n in range(100)]
    counting = _Counting(Redactor(secrets))
    assert counting.redactor.leaks("lorem ipsum dolor " * 1000) == []
    assert counting.lookups <= 18_000 / redaction.STRIDE + 1


class _Counting(dict[str, str]):
    """The redactor's table of pieces, with a count of its lookups."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__(redactor._pieces)
        self.lookups = 0
        self.redactor = redactor
        redactor._pieces = self

    def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
        self.lookups += 1
        return super().get(key)


def test_final_scan_masks_secrets_in_files(tmp_path: Path) -> None:
    """A secret in a file is masked and reported, and the chain of the masked journal is intact."""
    token = "9c1e44f0a7b2d8835e6f01c2b3a4958677889900"
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("run", run="r", site="s", mode="apply", rehearsal=False, version="0", roster=["ghost"])
    journal.write("note", text=f"cloned with {token}")
    journal.write("end", exit=0, verdict="converged", wall_s=1.0)
    journal.close()
    (tmp_path / "junit.xml").write_text(f"<testsuite><system-out>{token[4:30]}</system-out></testsuite>")
    written = finish(tmp_path, Redactor([Secret(token, where="MUSTER_TOKEN")]))
    assert written.leaked
    assert sorted(problem.path.name for problem in written.problems) == ["journal.jsonl", "junit.xml"]
    assert all("MUSTER_TOKEN" in str(problem) and token not in str(problem) for problem in written.problems)
    for path in tmp_path.iterdir():
        assert leaked_pieces(path.read_text(), token) == [], path.name
    lines = read(tmp_path / "journal.jsonl").lines
    assert lines[1]["text"] == f"cloned with {MASK}"
    assert "taken out of lines 1" in lines[-1]["text"]
    assert not finish(tmp_path, Redactor([Secret(token, where="MUSTER_TOKEN")])).leaked
