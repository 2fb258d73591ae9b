"""Where engines are made: the line to change when they pile up."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from pgleak.pool import api
from pgleak.pool.snapshot import Limits
from pgleak.pool.suspects import PILE, piled_up
from pool_support import new_name, url

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pgleak.demo.embedded import EmbeddedPostgres

HERE = Path(__file__).name
AT_ONCE = Limits(unproven_site=0.0)


def make(server: EmbeddedPostgres, **options: object) -> Engine:
    return create_engine(url(server), **options)


def use(engine: Engine, times: int = 1) -> None:
    for _ in range(times):
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))


@pytest.mark.parametrize(
    "options", [{"echo": False}, {"hide_parameters": True}, {"logging_name": "shop"}, {"query_cache_size": 10}]
)
def test_create_engine_takes_what_it_took_before(postgres16: EmbeddedPostgres, options: dict[str, object]) -> None:
    """It reads the names of an engine's arguments from the code of its constructor, which is wrapped."""
    api.instrument()
    use(make(postgres16, **options))
    with pytest.raises(TypeError, match="Invalid argument"):
        make(postgres16, no_such_option=True)


def test_engines_made_over_and_over_are_named_with_their_line(
    postgres16: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    api.instrument(name=new_name(), limits=AT_ONCE)
    engines = []
    for _ in range(PILE):
        engines.append(make(postgres16))
        use(engines[-1])
    (pile,) = piled_up(api.snapshot())
    first, second = pile.made.frames[:2]
    assert (Path(first.file).name, first.function) == (HERE, "make")
    assert second.function == "test_engines_made_over_and_over_are_named_with_their_line"
    assert pile.made.unused == pile.made.engines == PILE
    with caplog.at_level(logging.WARNING, logger="pgleak.pool"):
        api.MONITOR.tick()
        api.MONITOR.tick()
    lines = [record.getMessage() for record in caplog.records if "engine_per_call" in record.getMessage()]
    assert len(lines) == 1
    assert f"{HERE}:{first.line}" in lines[0]
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize("each", [2, 3])
def test_two_engines_for_the_same_role_may_be_meant_for_different_work(postgres16: EmbeddedPostgres, each: int) -> None:
    """As one that writes and one that reads, for each of five tenants."""
    api.instrument(name=new_name(), limits=AT_ONCE)
    engines = []
    for number in range(each * 5):
        tenant = {"options": f"-csearch_path=tenant{number % 5}"}
        engines.append(create_engine(url(postgres16).update_query_dict(tenant)))
        use(engines[-1])
    assert [pile.made.unused for pile in piled_up(api.snapshot())] == ([] if each == 2 else [15])
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize(("made", "told"), [(5, 0), (6, 1), (11, 1), (12, 2)])
def test_the_log_tells_of_a_pile_when_it_doubles(
    postgres16: EmbeddedPostgres, caplog: pytest.LogCaptureFixture, made: int, told: int
) -> None:
    """Sooner than other processes' engines make it one: nobody here knows those."""
    api.instrument(name=new_name(), limits=AT_ONCE)
    engines = []
    with caplog.at_level(logging.WARNING, logger="pgleak.pool"):
        for _ in range(made):
            engines.append(make(postgres16))
            use(engines[-1])
            api.MONITOR.tick()
    assert caplog.text.count("engine_per_call") == told
    for engine in engines:
        engine.dispose()


def time_passes(seconds: float) -> None:
    """Everything was that much longer ago."""
    for pool in api.LEDGER.pools.values():
        for watched in pool.engines.values():
            watched.born -= seconds
        for connection in pool.connections.values():
            connection.used_at -= seconds


def test_a_call_may_use_its_engine_more_than_once(postgres16: EmbeddedPostgres) -> None:
    api.instrument()
    engines = [make(postgres16) for _ in range(PILE)]
    for engine in engines:
        use(engine, times=3)
    time_passes(59)
    assert piled_up(api.snapshot()) == ()
    time_passes(2)
    (pile,) = piled_up(api.snapshot())
    assert pile.made.unused == PILE
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize("come_back", [2, PILE + 2])
def test_engines_that_are_used_again_are_no_pile(postgres16: EmbeddedPostgres, come_back: int) -> None:
    """One per tenant: some tenants come rarely, and others before them show that they do come."""
    api.instrument()
    engines = [make(postgres16) for _ in range(PILE + 2)]
    for engine in engines:
        use(engine, times=2)
    time_passes(50)
    for engine in engines[:come_back]:
        use(engine)
    time_passes(3600)
    (made,) = [made for pool in api.snapshot().pools for made in pool.made]
    assert made.engines == PILE + 2
    assert made.unused == 0
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize("told_apart", ["url", "connect_args", ""])
def test_tenants_that_have_not_come_back_yet_are_no_pile(postgres16: EmbeddedPostgres, told_apart: str) -> None:
    """Their engines differ in the role, the database or the search path; those of one call after the other in nothing but a name."""
    api.instrument(name=new_name(), limits=AT_ONCE)
    engines = []
    for number in range(PILE + 2):
        differs = {"options": f"-csearch_path=tenant{number}"} if told_apart else {"application_name": f"call-{number}"}
        if told_apart == "connect_args":
            engines.append(create_engine(url(postgres16), connect_args=differs))
        else:
            engines.append(create_engine(url(postgres16).update_query_dict(differs)))
        use(engines[-1])
    assert [pile.made.unused for pile in piled_up(api.snapshot())] == ([] if told_apart else [PILE + 2])
    for engine in engines:
        engine.dispose()


def test_engines_that_keep_no_connection_are_no_pile(postgres16: EmbeddedPostgres) -> None:
    api.instrument(limits=AT_ONCE)
    engines = [make(postgres16, poolclass=NullPool) for _ in range(PILE)]
    for engine in engines:
        use(engine)
    assert piled_up(api.snapshot()) == ()


def test_engines_are_given_time_to_be_used_again(postgres16: EmbeddedPostgres) -> None:
    api.instrument()
    engines = [make(postgres16) for _ in range(PILE)]
    for engine in engines:
        use(engine)
    assert piled_up(api.snapshot()) == ()
    for engine in engines:
        engine.dispose()


def test_the_plugin_knows_the_line_as_well(postgres16: EmbeddedPostgres) -> None:
    from sqlalchemy.dialects import plugins

    from pgleak.pool.plugin import PgleakPlugin

    plugins.register("pgleak_under_test", PgleakPlugin.__module__, PgleakPlugin.__name__)
    address = url(postgres16).update_query_dict({"plugin": "pgleak_under_test"})
    engine = create_engine(address)
    line = sys._getframe().f_lineno - 1
    use(engine)
    (made,) = [made for pool in api.snapshot().pools for made in pool.made]
    assert (Path(made.frames[0].file).name, made.frames[0].line) == (HERE, line)
    engine.dispose()


def test_an_engine_that_was_there_before_has_no_known_origin(postgres16: EmbeddedPostgres) -> None:
    engine = make(postgres16)
    api.instrument(engine)
    use(engine)
    (pool,) = api.snapshot().pools
    assert pool.made == ()
    engine.dispose()
