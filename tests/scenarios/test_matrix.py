"""The matrix that decides: each cause of a leak as a real program is named, with its line; its healthy twin is not."""

from __future__ import annotations

import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from pgleak.pool.suspects import PILE
from scenarios.staging import HERE, Run, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgleak.demo.embedded import EmbeddedPostgres

LOAD = 60  # checkouts under which a healthy program must stay silent
QUIET = 7.0  # seconds of watching it: more than the longest limit of launch.py


@dataclass(frozen=True)
class Leak:
    """What has to be said of a buggy program."""

    program: str
    cause: str
    held: int  # connections
    kind: Literal["session", "connection"]
    owner: tuple[str, str] = ("thread", "alive")
    told: str = "session_left_open"  # what the sidecar makes of it, in words and with what to change


LEAKS = [
    Leak("session_never_removed", "overdue", 3, "session", told="kept_between_turns"),
    Leak("thread_ends", "owner_dead", 4, "session", ("thread", "dead"), "thread_ended"),
    Leak("loop_error_path", "overdue", 1, "session", told="kept_between_turns"),
    Leak("handler_error_path", "overdue", 1, "session", told="kept_between_turns"),
    Leak("sleeping_loop", "overdue", 3, "session", told="held_while_working"),
    Leak("context_manager", "overdue", 3, "connection", told="held_while_working"),
    Leak("dispose_while_out", "orphaned", 3, "connection", told="disposed_while_out"),
    Leak("detach_and_forget", "detached", 3, "connection", told="detached"),
    Leak("fork_after_connect", "inherited", 1, "connection", told="used_across_fork"),
    Leak("exception_between", "overdue", 3, "connection", told="function_left_it_open"),
    Leak("fastapi_dependency", "overdue", 3, "session"),
    Leak("cancelled_task", "owner_dead", 3, "session", ("task", "dead"), "task_ended"),
    Leak("streaming_response", "overdue", 3, "session"),
    Leak("traceback_kept", "overdue", 3, "connection", told="function_left_it_open"),
    Leak("threads_outlive_requests", "overdue", 4, "session"),
]
TWINS = [leak.program for leak in LEAKS] + ["engine_per_request"]
NO_LEAK_AT_ALL = ["pool_per_tenant", "pool_too_small", "pools_fill_slowly"]
HEALTHY = [
    *((program, "healthy") for program in TWINS + NO_LEAK_AT_ALL),
    ("threads_outlive_requests", "healthy_scope"),
    ("pool_per_tenant", "healthy_rarely"),
]


def enough_for(leak: Leak) -> Callable[[Run], bool]:
    return lambda run: len(run.verdicts) >= leak.held and has_said_so(run)


def has_said_so(run: Run) -> bool:
    return any(pool.counters.suspects for pool in run.pools)


def quiet_under_load() -> Callable[[Run], bool]:
    since: list[float] = []

    def enough(run: Run) -> bool:
        if run.checkouts and not since:
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] > QUIET and run.checkouts >= LOAD

    return enough


def has_piled_up(run: Run) -> bool:
    is_pile = sum(pile.made.unused for pile in run.piles) >= PILE
    return is_pile and sum(len(pool.idle) for pool in run.pools) >= 12 and "engine_per_call" in run.log_so_far()


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, postgres16: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, str], Run]]:
    """Start what the chosen tests ask for, several at a time; each test waits for its own."""
    stage = Stage(postgres16, tmp_path_factory.mktemp("matrix"))
    enough: dict[tuple[str, str], Callable[[Run], bool]] = {
        ("engine_per_request", "buggy"): has_piled_up,
        **{(leak.program, "buggy"): enough_for(leak) for leak in LEAKS},
        **{key: quiet_under_load() for key in HEALTHY},
    }
    futures: dict[tuple[str, str], Future[Run]] = {}
    with ThreadPoolExecutor(5) as threads:

        def start(key: tuple[str, str]) -> Future[Run]:
            if key not in futures:
                futures[key] = threads.submit(stage.run, *key, enough[key])
            return futures[key]

        for item in request.session.items:
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            leak = parameters.get("leak")
            if isinstance(leak, Leak):
                start((leak.program, "buggy"))
            elif "variant" in parameters:
                start((parameters["program"], parameters["variant"]))
        yield lambda program, variant: start((program, variant)).result()


def marked_line(program: str, mark: str) -> int | None:
    lines = (HERE / "programs" / f"{program}.py").read_text().splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.endswith(f"# {mark}")), None)


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.program)
def test_a_leak_is_named_with_its_cause_and_its_line(runs: Callable[[str, str], Run], leak: Leak) -> None:
    run = runs(leak.program, "buggy")
    verdicts = list(run.verdicts.values())

    assert len(verdicts) >= leak.held, run.log
    assert {verdict.cause for verdict in verdicts} == {leak.cause}
    assert {verdict.checkout.kind for verdict in verdicts} == {leak.kind}
    assert {(v.checkout.owner.kind, v.checkout.owner.state) for v in verdicts} == {leak.owner}
    for verdict in verdicts:
        innermost = verdict.checkout.frames[0]
        assert Path(innermost.file).name == f"{leak.program}.py"
        assert innermost.line == marked_line(leak.program, "LEAK")
        assert verdict.checkout.site == innermost.site
    assert len(verdicts) == leak.held
    assert {verdict.checkout.backend.pid for verdict in verdicts} <= run.backends


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.program)
def test_a_leak_is_named_within_its_threshold(runs: Callable[[str, str], Run], leak: Leak) -> None:
    """Not before the limit, and at most two seconds after it, which is the rhythm of looking on a busy machine."""
    for verdict in runs(leak.program, "buggy").verdicts.values():
        assert verdict.limit <= verdict.checkout.age < verdict.limit + 2


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.program)
def test_a_leak_is_logged_with_file_and_line(runs: Callable[[str, str], Run], leak: Leak) -> None:
    run = runs(leak.program, "buggy")
    line = marked_line(leak.program, "LEAK")
    place = re.escape(f"{leak.program}.py:{line}")
    assert re.search(rf"{leak.kind} held for \d+ s .*{leak.cause}.*{place}", run.log), run.log


@pytest.mark.parametrize(
    "leak", [leak for leak in LEAKS if marked_line(leak.program, "STANDS")], ids=lambda leak: leak.program
)
def test_a_living_owner_is_found_where_it_stands_now(runs: Callable[[str, str], Run], leak: Leak) -> None:
    """At the last look: a busy machine may have come to the limit before its program came to that line."""
    latest = runs(leak.program, "buggy").latest
    assert latest
    for verdict in latest:
        assert verdict.checkout.standing[0].line == marked_line(leak.program, "STANDS")


def test_an_engine_per_request_is_named_with_the_line_that_makes_it(runs: Callable[[str, str], Run]) -> None:
    """No connection is out, so no checkout is suspect; what piles up is engines, each with a connection used once."""
    run = runs("engine_per_request", "buggy")
    (pool,) = run.pools
    assert pool.engines >= 12
    assert {backend.pid for backend in pool.idle} == run.backends
    assert not run.verdicts
    line = marked_line("engine_per_request", "LEAK")
    (pile,) = run.piles
    assert (Path(pile.made.frames[0].file).name, pile.made.frames[0].line) == ("engine_per_request.py", line)
    assert re.search(rf"engine_per_call.*engine_per_request\.py:{line}", run.log), run.log


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.program)
def test_the_sidecar_diagnoses_the_right_cause_and_line(runs: Callable[[str, str], Run], leak: Leak) -> None:
    run = runs(leak.program, "buggy")
    assert run.told is not None
    assert [diagnosis.cause.key for diagnosis in run.told.diagnoses] == [leak.told]
    (diagnosis,) = run.told.diagnoses
    assert (Path(diagnosis.frames[0].file).name, diagnosis.frames[0].line) == (
        f"{leak.program}.py",
        marked_line(leak.program, "LEAK"),
    )
    assert diagnosis.connections == leak.held
    assert f"{leak.program}.py:{marked_line(leak.program, 'LEAK')}" in run.words
    assert "Nothing leaks" not in run.words


def test_the_sidecar_diagnoses_an_engine_per_request(runs: Callable[[str, str], Run]) -> None:
    run = runs("engine_per_request", "buggy")
    assert run.told is not None
    (diagnosis,) = run.told.diagnoses
    assert diagnosis.cause.key == "engine_per_call"
    assert diagnosis.frames[0].line == marked_line("engine_per_request", "LEAK")
    assert 10 <= diagnosis.connections <= 12


@pytest.mark.parametrize(("program", "variant"), HEALTHY)
def test_the_sidecar_says_that_nothing_leaks(runs: Callable[[str, str], Run], program: str, variant: str) -> None:
    assert runs(program, variant).words.startswith("Nothing leaks.")


@pytest.mark.parametrize(("program", "variant"), HEALTHY)
def test_a_healthy_twin_stays_silent_under_load(runs: Callable[[str, str], Run], program: str, variant: str) -> None:
    run = runs(program, variant)
    assert run.checkouts >= LOAD, run.log
    assert not run.verdicts
    assert not run.piles
    assert not any(pool.counters.suspects for pool in run.pools)
    assert "held for" not in run.log
    assert "engine_per_call" not in run.log
    assert not run.stuck


def test_a_pool_that_is_too_small_shows_as_waiting(runs: Callable[[str, str], Run]) -> None:
    run = runs("pool_too_small", "healthy")
    (pool,) = run.pools
    assert pool.counters.timeouts > 0
    assert pool.counters.wait_seconds > 1
    assert pool.connections_max == 2
    assert "waiting for a connection now" in run.words


def test_pools_per_tenant_show_as_engines(runs: Callable[[str, str], Run]) -> None:
    (pool,) = runs("pool_per_tenant", "healthy").pools
    assert pool.engines >= 5


def test_workers_fill_their_pools_and_the_sum_is_told(runs: Callable[[str, str], Run]) -> None:
    run = runs("pools_fill_slowly", "healthy")
    assert len(run.found.processes) == 3
    assert sum(pool.connections_max for pool in run.pools) == 15
    assert run.reported == run.backends
