"""Basic authentication: who gets in, at what price, and who cannot keep others out."""

from __future__ import annotations

import base64
import contextlib
import statistics
import threading
import time
from typing import TYPE_CHECKING

import bcrypt
import pytest

from pgleak.web.auth import BasicAuth, TooManyAttemptsError
from pgleak.web.policy import TokenBucket
from web_support import Client, FakeSite, get, serving, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgleak.web import WebServer

PASSWORD = "correct horse: battery ✓"
CHEAP = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
DEAR = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()  # some 50 ms


def basic(user: str, password: str, scheme: str = "Basic") -> str:
    return f"{scheme} {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def config(folder: Path, users: dict[str, str], rest: str = "") -> Path:
    file = folder / "web.yml"
    lines = "".join(f"  {name}: {hash_}\n" for name, hash_ in users.items())
    file.write_text(f"basic_auth_users:\n{lines}{rest}", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("auth")
    users = {"alice": CHEAP, "Zoë": CHEAP.replace("$2b$", "$2y$"), "carol": CHEAP.replace("$2b$", "$2a$")}
    with serving(web_config_file=config(folder, users)) as server:
        yield server


@pytest.mark.parametrize(
    "authorization",
    [
        basic("alice", PASSWORD),
        basic("Zoë", PASSWORD),
        basic("carol", PASSWORD),
        basic("alice", PASSWORD, "bAsIc"),
        basic("alice", PASSWORD, "Basic  "),
    ],
)
def test_the_right_password_gets_in(server: WebServer, authorization: str) -> None:
    assert get(server, "/metrics", Authorization=authorization).status == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic YWxpY2U=",  # no colon
        "Basic \xe9",
        f"Bearer {PASSWORD.encode().hex()}",
        "Digest username=alice",
        basic("alice", ""),
        basic("alice", "wrong"),
        basic("alice", PASSWORD + " "),
        basic("alice", PASSWORD + "\0"),
        basic("alice", "x" * 200),
        basic("ALICE", PASSWORD),
        basic("nobody", PASSWORD),
        basic("", PASSWORD),
        basic("", ""),
        f"{basic('alice', PASSWORD)}, {basic('alice', PASSWORD)}",
    ],
)
def test_anything_else_is_a_401_that_asks_for_a_password(server: WebServer, authorization: str) -> None:
    answer = get(server, "/metrics", Authorization=authorization)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="pgleak", charset="UTF-8"'
    assert answer.text == "A user name and password are needed.\n"


@pytest.mark.parametrize(
    "path", ["/", "/connections", "/metrics", "/probe?target=main", "/sd", "/-/healthy", "/-/ready", "/nothing"]
)
def test_no_address_is_exempt(server: WebServer, path: str) -> None:
    """As in the other exporters, which ask for the password on each address too."""
    with Client(server) as client:
        for method in ("GET", "HEAD", "POST"):
            assert client.get(path, method=method).status == 401


def test_long_passwords_work_as_bcrypt_takes_them(tmp_path: Path) -> None:
    """Only the first 72 bytes count; some versions of the package would refuse more."""
    long = "0123456789" * 10
    hash_ = bcrypt.hashpw(long[:72].encode(), bcrypt.gensalt(4)).decode()
    with serving(web_config_file=config(tmp_path, {"alice": hash_})) as server:
        assert get(server, "/metrics", Authorization=basic("alice", long)).status == 200
        assert get(server, "/metrics", Authorization=basic("alice", long[:71])).status == 401


def test_a_hash_with_stray_bits_in_its_salt_works_as_elsewhere() -> None:
    """Some programs made such hashes; the other exporters take them, and the bcrypt package does not."""
    last = len("$2b$04$") + 21
    after = {".": "/", "O": "P", "e": "f", "u": "v"}[CHEAP[last]]
    stray = CHEAP[:last] + after + CHEAP[last + 1 :]
    auth = BasicAuth({"alice": stray})
    assert auth.allows(basic("alice", PASSWORD), "127.0.0.1")
    assert not auth.allows(basic("alice", "wrong"), "127.0.0.1")


def seconds(auth: BasicAuth, authorization: str) -> float:
    """Of processor time: what else the machine does must not count."""
    started = time.thread_time()
    auth.allows(authorization, "127.0.0.1")
    return time.thread_time() - started


def test_a_proven_password_costs_nothing_the_next_time() -> None:
    auth = BasicAuth({"alice": DEAR})
    first = seconds(auth, basic("alice", PASSWORD))
    again = statistics.median(seconds(auth, basic("alice", PASSWORD)) for _ in range(20))
    assert again < first / 20
    assert again < 0.001
    assert not auth.allows(basic("alice", PASSWORD + "x"), "127.0.0.1")


def test_an_unknown_user_costs_as_much_as_a_known_one() -> None:
    auth = BasicAuth({"alice": DEAR, "bob": DEAR})
    known = statistics.median(seconds(auth, basic("alice", f"wrong {number}")) for number in range(5))
    unknown = statistics.median(seconds(auth, basic("nobody", f"wrong {number}")) for number in range(5))
    assert known / 2 < unknown < known * 2


def test_the_memory_for_passwords_and_guessers_is_bounded() -> None:
    auth = BasicAuth({f"user {number}": CHEAP for number in range(100)})
    for number in range(100):
        assert auth.allows(basic(f"user {number}", PASSWORD), "127.0.0.1")
    for number in range(1100):
        assert not auth.allows(basic("user 1", "wrong"), f"2001:db8::{number:x}")
    assert len(auth._proven) <= 64
    assert len(auth._line._attempts) <= 1024


def test_nothing_in_memory_is_a_password() -> None:
    auth = BasicAuth({"alice": CHEAP})
    assert auth.allows(basic("alice", PASSWORD), "127.0.0.1")
    kept = repr(vars(auth)) + repr(vars(auth._line))
    assert PASSWORD not in kept
    assert base64.b64encode(PASSWORD.encode()).decode() not in kept


@contextlib.contextmanager
def guessing(server: WebServer, threads: int) -> Iterator[list[int]]:
    """So many clients try one password after the other, until the block ends. Yields the answers they get."""
    stop = threading.Event()
    answers: list[int] = []

    def guess() -> None:
        with contextlib.suppress(OSError, AssertionError), Client(server) as client:
            while not stop.is_set():
                answers.append(client.get("/metrics", Authorization=basic("alice", f"guess {len(answers)}")).status)

    running = [threading.Thread(target=guess) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in running:
            thread.join()


def test_guessing_does_not_keep_scrapes_out(tmp_path: Path) -> None:
    """Neither one whose password is proven, nor the first of another scraper, which goes ahead of those who fail."""
    with serving(web_config_file=config(tmp_path, {"alice": DEAR})) as server:
        right = basic("alice", PASSWORD)
        assert get(server, "/metrics", Authorization=right).status == 200
        with guessing(server, 20) as answers:
            until(lambda: len(answers) > 20 and 429 in answers)
            for _ in range(5):
                started = time.perf_counter()
                assert get(server, "/metrics", Authorization=right).status == 200
                assert time.perf_counter() - started < 1.0
            with server._policy._lock:  # as after a reload: nothing is proven
                auth = server._policy.current().auth
            assert auth is not None
            auth._proven.clear()
            started = time.perf_counter()
            with Client(server, source="127.0.0.2") as newcomer:
                assert newcomer.get("/metrics", Authorization=right).status == 200
            assert time.perf_counter() - started < 3.0
        assert set(answers) <= {401, 429}


def test_the_line_for_checks_is_short_and_turns_away_who_failed_most() -> None:
    auth = BasicAuth({"alice": CHEAP})
    line = auth._line
    first = line.turn("someone")
    waiting = [line.turn("guesser") for _ in range(16)]
    newcomer = line.turn("newcomer")
    assert waiting[-1].refused
    with pytest.raises(TooManyAttemptsError), waiting[-1]:
        pytest.fail("it must not be checked")
    assert not newcomer.go.is_set()
    line.finish(first)
    assert [turn.go.is_set() for turn in (*waiting[:2], newcomer)] == [True, False, False], "the first tried as little"
    line.finish(waiting[0])
    assert [turn.go.is_set() for turn in (*waiting[:2], newcomer)] == [True, False, True], "the second tried more"


def test_a_rate_limit_refuses_what_is_too_much(tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_text("rate_limit: {interval: 1h, burst: 3}\n", encoding="utf-8")
    with serving(web_config_file=file) as server, Client(server) as client:
        assert [client.get("/-/healthy").status for _ in range(5)] == [200, 200, 200, 429, 429]


def test_the_bucket_fills_again_and_never_overflows() -> None:
    now = 0.0
    bucket = TokenBucket(10.0, 2, clock=lambda: now)
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    now = 9.9
    assert not bucket.take()
    now = 10.1
    assert [bucket.take() for _ in range(2)] == [True, False]
    now = 1000.0
    assert [bucket.take() for _ in range(3)] == [True, True, False]


def test_headers_of_the_config_are_on_every_answer(tmp_path: Path) -> None:
    headers = 'http_server_config:\n  headers: {X-Frame-Options: deny, Content-Security-Policy: "default-src https:"}\n'
    with serving(FakeSite(), web_config_file=config(tmp_path, {"alice": CHEAP}, headers)) as server:
        for path, authorization in (("/", basic("alice", PASSWORD)), ("/metrics", ""), ("/nothing", "")):
            answer = get(server, path, Authorization=authorization)
            assert answer.headers["x-frame-options"] == "deny"
            assert answer.headers["content-security-policy"] == "default-src https:", "it stands instead of our own"
