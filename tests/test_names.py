"""From what clients call themselves to a bounded, steady set of label values."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import watching
from pgleak.postgres.activity import HIDDEN, Application, Place, summarise
from pgleak.postgres.caps import KEEP_SECONDS, OTHER, OTHER_IGNORED
from pgleak.postgres.evidence import Packed
from pgleak.postgres.names import UNSET, Namer
from pgleak.settings import Caps, Rewrite, Thresholds
from servers import query, run_sql, wait_until

if TYPE_CHECKING:
    from conftest import Connect, NewPostgres
    from pgleak.demo.embedded import EmbeddedPostgres

HOUR = KEEP_SECONDS


def pack(name: str, number: int = 1, user: str = "user", address: str = "10.0.0.1") -> Packed:
    return Packed.of_ages("db", user, name, address, "idle", session=[1] * number, unused=[1] * number)


def namer(**options: object) -> Namer:
    return Namer(watching.settings(**options))


def names(places: list[Place]) -> list[str]:
    return [place.key[2] for place in places]


# Caps


def test_ten_thousand_names_keep_the_sum_and_a_bounded_memory() -> None:
    one = namer(caps=Caps(application_name=100))
    sizes = []
    for scrape in range(20):
        packs = [pack(f"tenant/{chr(97 + number % 26)}/{scrape}q{number}z", 1 + number % 3) for number in range(10_000)]
        keys = [place.key for place in one.places(packs, scrape * 15.0)]
        assert len(set(keys)) <= 101
        assert len(keys) == len(packs)
        summed: dict[tuple[str, ...], Application] = {}
        for key, each in zip(keys, packs, strict=True):
            before = summed[key].states["idle"] if key in summed else 0
            summed[key] = Application({"idle": before + each.size})
        assert sum(a.connections for a in one.remember(summed, scrape * 15.0).values()) == sum(
            each.size for each in packs
        )
        sizes.append(sum(sys.getsizeof(table) for table in (one._rewritten, one._ignored, one._remembered)))
    assert one.overflowed["application_name"] >= 9_900
    assert max(sizes[5:]) <= sizes[5] * 1.1


def test_combinations_of_labels_are_bounded_too() -> None:
    """Forty names and forty users are within their caps, and 1,600 series in every metric."""
    one = namer(caps=Caps(datname=40, usename=40, application_name=40, client_addr=40))
    packs = [pack(f"app{chr(97 + i % 26)}{i}x", user=f"u{j}") for i in range(40) for j in range(40)]
    keys = [place.key for place in one.places(packs, 0.0)]
    assert len(set(keys)) == 401
    assert keys.count((OTHER,) * 3) == 1_600 - 400
    assert [place.key for place in one.places(packs, 15.0)] == keys
    assert one.combinations_overflowed == 1_600 - 400
    one.places(packs[:100], 30.0)
    assert one.combinations_overflowed == 0


def test_ten_thousand_distinct_names_on_a_real_server_stay_capped(
    postgres16: EmbeddedPostgres, connect: Connect
) -> None:
    """As many connections as fit, renamed from scrape to scrape until 10,000 names have been seen."""
    reader = watching.reader(postgres16, caps=Caps(application_name=10))
    sessions = [connect(postgres16) for _ in range(50)]
    seen: set[tuple[str, ...]] = set()
    overflowed = 0
    for turn in range(200):
        for number, session in enumerate(sessions):
            with session.cursor() as cursor:
                cursor.execute("SET application_name = %s", [f"name {turn}x{number}y"])
        reading = watching.read(reader)
        seen |= reading.applications.keys()
        assert reading.used == sum(a.connections for a in reading.applications.values())
        overflowed = reading.overflowed["application_name"]
    assert len({name for _, _, name in seen}) <= 11
    assert overflowed >= 40
    reader.close()


# Rewriting


def test_names_are_rewritten_in_order_and_empty_ones_say_so() -> None:
    rewrites = (Rewrite(re.compile(r"\d+"), "N"), Rewrite(re.compile("^appN$"), "the app"))
    one = namer(application_names=rewrites)
    assert names(one.places([pack("app12"), pack("web 3"), pack(""), pack("   ")], 0.0)) == [
        "the app",
        "web N",
        UNSET,
        UNSET,
    ]


def test_renamed_connections_are_judged_apart_and_summed_together() -> None:
    """Two processes whose names differ in a number are two pools, and one application.

    The second pool opened a connection after the last use of the first one's: only in one pool were that a pass-over.
    """
    one = namer(application_names=(Rewrite(re.compile(r"-\d+$"), ""),))
    older, younger = (7_200_000, 3_700_000), (60_000, 1_000)
    packs = [
        Packed.of_ages("db", "user", name, "10.0.0.1", "idle", session=[session], unused=[unused])
        for name, (session, unused) in (("worker-1", older), ("worker-2", younger))
    ]
    both = summarise(packs, one.places(packs, 0.0), Thresholds())
    assert {key: sum(application.suspects) for key, application in both.items()} == {("db", "user", "worker"): 0}
    assert both["db", "user", "worker"].connections == 2

    same = [each._replace(application_name="worker-1") for each in packs]
    assert [sum(a.suspects) for a in summarise(same, one.places(same, 0.0), Thresholds()).values()] == [1]


# Grouping


def test_grouping_follows_the_setting() -> None:
    packs = [pack("app", address="10.0.0.1"), pack("app", address="10.0.0.2")]
    assert {place.key for place in namer(group_by=("application_name",)).places(packs, 0.0)} == {("app",)}
    by_address = namer(group_by=("application_name", "client_addr"), caps=Caps(client_addr=1))
    assert {place.key for place in by_address.places(packs, 0.0)} == {("app", "10.0.0.1"), ("app", OTHER)}
    assert by_address.overflowed == {"application_name": 0, "client_addr": 1}


def test_single_connections_have_a_bounded_name_also_where_the_grouping_has_none() -> None:
    """What shows connections one by one, as pgleak_backends does, has its label whatever the others are grouped by."""
    packs = [pack("worker-1234", 3), pack("worker-77", 2), pack("small"), pack("psql")]
    without = namer(group_by=("usename",), caps=Caps(application_name=1))
    assert [place.name for place in without.places(packs, 0.0)] == ["worker-*", "worker-*", OTHER, "psql"]
    assert without.overflowed == {"usename": 0}
    same = namer(caps=Caps(application_name=1))
    assert [place.name for place in same.places(packs, 0.0)] == ["worker-*", "worker-*", OTHER, "psql"]


# What fell to zero


def test_an_application_that_fell_to_zero_is_zero_for_an_hour_and_then_gone() -> None:
    one = namer()
    key = ("db", "user", "app")
    one.remember({key: Application({"idle": 3, "active": 1})}, 0.0)
    assert one.remember({}, HOUR)[key].states == {"idle": 0, "active": 0}
    assert key not in one.remember({}, HOUR + 1)


def test_a_state_that_was_there_within_the_hour_is_zero() -> None:
    one = namer()
    key = ("db", "user", "app")
    one.remember({key: Application({"idle in transaction (aborted)": 1})}, 0.0)
    assert one.remember({key: Application({"idle": 1})}, 15.0)[key].states == {
        "idle in transaction (aborted)": 0,
        "idle": 1,
    }


def test_what_a_lost_grant_hides_is_unknown_and_not_zero() -> None:
    one = namer()
    key = ("db", "user", "app")
    one.remember({key: Application({"idle": 4})}, 0.0)
    hidden = one.remember({key: Application({HIDDEN: 4})}, 15.0)[key]
    assert hidden.states == {HIDDEN: 4}
    assert not hidden.visible


def test_hidden_states_are_forgotten_when_they_become_visible() -> None:
    one = namer()
    key = ("db", "user", "app")
    one.remember({key: Application({HIDDEN: 4})}, 0.0)
    assert one.remember({key: Application({"idle": 4})}, 15.0)[key].states == {"idle": 4}


def test_a_real_application_that_disconnects_is_reported_as_zero(
    postgres18: EmbeddedPostgres, connect: Connect
) -> None:
    reader = watching.reader(postgres18)
    session = connect(postgres18, application_name="shortlived")
    assert watching.connections(watching.read(reader))["shortlived"]["idle"] == 1
    session.close()
    wait_until(lambda: watching.connections(watching.read(reader))["shortlived"] == {"idle": 0})
    reader.close()


# Whom not to judge


def ignores(one: Namer, user: str, name: str) -> bool:
    (place,) = one.places([pack(name, user=user)], 0.0)
    return place.ignored


def test_interactive_clients_are_exempt_by_name_or_by_user_where_there_is_none() -> None:
    one = namer()
    assert ignores(one, "anna", "psql")
    assert ignores(one, "anna", "DBeaver 24.1.0 - Main")
    assert not ignores(one, "psql", "shop"), "an application is not exempt for its user's name"
    assert ignores(one, "metabase", "")
    assert not ignores(one, "shop", "")


def test_users_can_be_exempt() -> None:
    one = namer(ignored_users=(re.compile("dba_.*"),))
    assert ignores(one, "dba_anna", "anything")
    assert not ignores(one, "shop", "anything")


def test_a_user_is_exempt_also_where_users_are_summed_up() -> None:
    """Then what the others hold under the same name is judged, and the application is not called ignored."""
    leaked = [
        Packed.of_ages("db", user, "app", "10.0.0.1", "idle", session=[7_200_000], unused=[7_199_000])
        for user in ("dba_anna", "shop")
    ]
    one = namer(ignored_users=(re.compile("dba_.*"),), group_by=("application_name",))
    both = summarise(leaked, one.places(leaked, 0.0), Thresholds())["app",]
    assert (both.connections, sum(both.suspects), both.ignored) == (2, 1, False)
    of_anna = summarise(leaked[:1], one.places(leaked[:1], 0.0), Thresholds())["app",]
    assert (of_anna.connections, sum(of_anna.suspects), of_anna.ignored) == (1, 0, True)


def test_an_ignored_application_that_fell_to_zero_is_still_called_ignored() -> None:
    one = namer()
    key = ("db", "anna", "psql")
    one.remember({key: Application({"idle": 1}, ignored=True)}, 0.0)
    assert one.remember({}, 15.0)[key].ignored


def test_ignored_applications_take_no_place_from_others_and_are_never_judged_among_them(
    new_postgres: NewPostgres, connect: Connect
) -> None:
    """On a real server, with more of both than there are places; all are older than the thresholds."""
    server = new_postgres(18)
    reader = watching.reader(
        server, caps=Caps(application_name=2), thresholds=Thresholds(never_reused=0.2, passed_over=0.2)
    )
    for number in range(4):
        for name in ("psql", *(f"DBeaver {chr(97 + number)}{each}" for each in "xyz")):
            connect(server, application_name=name)
    for name in ("shop", "billing", "reports"):
        connect(server, application_name=name)

    def suspects() -> int:
        return sum(sum(application.suspects) for application in watching.read(reader).applications.values())

    wait_until(lambda: suspects() == 3, what="the three applications to be suspects, and nobody else")
    reading = watching.read(reader)
    by_name = {name: application for (_, _, name), application in reading.applications.items()}
    judged = {name for name, application in by_name.items() if not application.ignored}
    assert len(judged - {OTHER}) == 2
    assert OTHER in judged
    assert set(by_name) - judged == {"psql", "DBeaver ax", OTHER_IGNORED}
    assert by_name["psql"].connections == 4
    assert by_name[OTHER_IGNORED].connections == 11
    assert reading.overflowed["application_name"] == 2, "two of shop, billing, reports and pgleak"
    assert reading.used == sum(application.connections for application in by_name.values())
    reader.close()


def test_databases_and_users_beyond_their_caps_are_summed_up(new_postgres: NewPostgres, connect: Connect) -> None:
    """A database and a user for each tenant: the application stays visible, and every sum is preserved."""
    server = new_postgres(18)
    run_sql(server, *(f"CREATE DATABASE tenant{number} TEMPLATE template0 CONNECTION LIMIT 9" for number in range(5)))
    run_sql(server, *(f"CREATE ROLE tenant{number} LOGIN CONNECTION LIMIT 9" for number in range(5)))
    for number in range(5):
        for _ in range(number + 1):
            connect(server, user=f"tenant{number}", dbname=f"tenant{number}", application_name="shop")
    reader = watching.reader(server, caps=Caps(datname=2, usename=3))

    reading = watching.read(reader)

    of_shop = {key: a.connections for key, a in reading.applications.items() if key[2] == "shop"}
    assert of_shop == {("tenant4", "tenant4", "shop"): 5, ("tenant3", "tenant3", "shop"): 4, (OTHER, "tenant2", "shop"): 3,
                       (OTHER, OTHER, "shop"): 3}  # fmt: skip
    assert reading.overflowed == {"datname": 4, "usename": 3, "application_name": 0}
    assert reading.used == sum(application.connections for application in reading.applications.values())

    assert reading.server
    assert reading.server.database_limits == {"tenant3": 9, "tenant4": 9}
    assert reading.server.role_limits == {"tenant2": 9, "tenant3": 9, "tenant4": 9}
    ((sessions,),) = query(
        connect(server), "SELECT sum(sessions)::float8 FROM pg_stat_database WHERE datname IS NOT NULL"
    )
    shown = reading.server.sessions["sessions"]
    assert len(shown) == 3
    assert OTHER in shown
    assert 15 <= sum(shown.values()) <= sessions
    reader.close()
