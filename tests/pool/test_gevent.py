"""Under gevent, each greenlet is an owner of its own. In a process of its own: gevent's patch cannot be taken back."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from pool_support import url

if TYPE_CHECKING:
    from pgleak.demo.embedded import EmbeddedPostgres


STORY = """
    import sys
    from gevent import monkey
    monkey.patch_all()
    import gevent
    from gevent.event import Event
    from sqlalchemy import create_engine, text
    from pgleak.pool import api
    from pgleak.pool.snapshot import Limits

    suspects = []
    engine = create_engine(sys.argv[1], pool_size=5)
    api.instrument(engine, name="green", limits=Limits(dead_owner=0.2, unproven_site=60), on_suspect=suspects.append)

    def pool():
        return api.snapshot().pools[0]

    # many greenlets at once, each waiting for its turn
    def work():
        for _ in range(20):
            with engine.connect() as connection:
                connection.execute(text("select pg_sleep(0.001)"))
                gevent.sleep(0)
    gevent.joinall([gevent.spawn(work) for _ in range(20)], raise_error=True)
    counters = pool().counters
    assert counters.checkouts == counters.use.count == 400, counters
    assert pool().pending == 0 and not pool().checkouts

    # one that holds and waits, and where it stands
    release = Event()
    def holder():
        with engine.connect():
            release.wait()
    waiting = gevent.spawn(holder)
    gevent.sleep(0.1)
    (checkout,) = pool().checkouts
    assert checkout.owner.kind == "greenlet" and checkout.owner.state == "alive", checkout
    assert checkout.standing and checkout.standing[0].function.endswith("holder"), checkout.standing
    release.set(); waiting.join()

    # one that ends without returning; one that is killed while it holds
    kept = []
    gevent.spawn(lambda: kept.append(engine.connect())).join()
    (checkout,) = pool().checkouts
    assert checkout.owner.state == "dead", checkout
    with gevent.Timeout(10):
        while not suspects:
            gevent.sleep(0.05)
    assert suspects[0].cause == "owner_dead", suspects
    kept.pop().close()
    release.clear()
    killed = gevent.spawn(holder)
    gevent.sleep(0.05)
    killed.kill()
    assert not pool().checkouts
    assert api.snapshot().errors == 0
    api.uninstrument()
    print("well")
"""


#: gunicorn's worker patches when it starts, after an application that was loaded before (`preload_app`).
LATE_STORY = """
    import sys
    from sqlalchemy import create_engine
    from pgleak.pool import api

    engine = create_engine(sys.argv[1])
    api.instrument(engine, name="late")
    kept = [engine.connect()]
    from gevent import monkey
    monkey.patch_all()
    import gevent

    api.checkouts.forget()  # as after a fork
    kept.append(engine.connect())
    for name in "first", "second":
        gevent.spawn(lambda: kept.append(engine.connect())).join()
    owners = [checkout.owner for checkout in api.snapshot().pools[0].checkouts]
    assert [(owner.kind, owner.state) for owner in owners] == [
        ("thread", "alive"), ("greenlet", "alive"), ("greenlet", "dead"), ("greenlet", "dead"),
    ], owners
    assert api.snapshot().errors == 0
    for connection in kept:
        connection.close()
    api.uninstrument()
    print("well")
"""


#: Whatever the application does, each time in a greenlet of its own, the ledger says what the server says.
RANDOM_STORY = """
    import sys
    from gevent import monkey
    monkey.patch_all()
    import random
    from types import SimpleNamespace
    import gevent
    import psycopg2
    from sqlalchemy.pool import NullPool, QueuePool
    sys.path[:0] = sys.argv[2:]
    from pgleak.pool import api
    from pool_support import Truth
    from test_ledger_truth import STEPS, Application

    class InGreenlets(Application):
        ACTIONS = tuple(action for action in Application.ACTIONS if action != "fork")

    server = SimpleNamespace(port=int(sys.argv[1]))
    session = psycopg2.connect(host="127.0.0.1", port=server.port, user="postgres", dbname="postgres")
    session.autocommit = True
    truth = Truth(session)
    for seed, poolclass in enumerate((QueuePool, NullPool, QueuePool)):
        application = InGreenlets(server, "pg8000", random.Random(seed), poolclass)
        for _ in range(STEPS):
            gevent.joinall([gevent.spawn(application.step)], raise_error=True)
            truth.agrees(application.name)
    assert api.snapshot().errors == 0
    print("well")
"""


def tell(story: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(story), *map(str, arguments)],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "well", done.stderr


def test_greenlets(postgres16: EmbeddedPostgres) -> None:
    tell(STORY, url(postgres16, "pg8000").render_as_string(hide_password=False))


def test_greenlets_that_are_patched_in_after_us(postgres16: EmbeddedPostgres) -> None:
    tell(LATE_STORY, url(postgres16, "pg8000").render_as_string(hide_password=False))


def test_the_ledger_agrees_with_the_server_after_every_step_of_a_greenlet(postgres16: EmbeddedPostgres) -> None:
    here = Path(__file__).parent
    tell(RANDOM_STORY, postgres16.port, here.parent, here)
