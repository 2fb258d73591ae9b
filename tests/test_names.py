"""From what clients call themselves to a bounded, steady set of label values."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import watching
from pgleak.postgres.activity import HIDDEN, Application
from pgleak.postgres.evidence import Packed
from pgleak.postgres.names import KEEP_SECONDS, OTHER, UNSET, Namer, StickyCap
from pgleak.settings import Caps, Rewrite
from servers import wait_until

if TYPE_CHECKING:
    from conftest import Connect
    from pgleak.demo.embedded import EmbeddedPostgres

HOUR = KEEP_SECONDS


def pack(name: str, number: int = 1, user: str = "user", address: str = "10.0.0.1") -> Packed:
    return Packed("db", user, name, address, "idle", [1] * number, [1] * number, [-1] * number)


def namer(**options: object) -> Namer:
    return Namer(watching.settings(**options))


def names(keys: list[tuple[str, ...]]) -> list[str]:
    return [key[2] for key in keys]


# The cap


def test_the_cap_admits_the_largest_first_and_counts_what_it_folds() -> None:
    cap = StickyCap(2)
    cap.update({"small": 1, "large": 9, "middle": 5}, 0.0)
    assert [cap.label(name) for name in ("small", "large", "middle")] == [OTHER, "large", "middle"]
    assert cap.overflowed == 1


def test_who_was_admitted_stays_however_large_the_newcomers() -> None:
    cap = StickyCap(2)
    cap.update({"first": 1, "second": 1}, 0.0)
    cap.update({"first": 1, "giant": 500}, 60.0)
    assert [cap.label(name) for name in ("first", "second", "giant")] == ["first", "second", OTHER]


def test_a_place_is_free_an_hour_after_its_name_was_last_seen() -> None:
    cap = StickyCap(1)
    cap.update({"first": 1}, 0.0)
    cap.update({"second": 1}, HOUR)
    assert cap.label("second") == OTHER
    cap.update({"second": 1}, HOUR + 1)
    assert cap.label("second") == "second"
    assert cap.overflowed == 0


def test_ten_thousand_names_keep_the_sum_and_a_bounded_memory() -> None:
    one = namer(caps=Caps(application_name=100))
    sizes = []
    for scrape in range(20):
        packs = [pack(f"tenant/{chr(97 + number % 26)}/{scrape}q{number}z", 1 + number % 3) for number in range(10_000)]
        keys = one.keys(packs, scrape * 15.0)
        assert len(set(keys)) <= 101
        assert len(keys) == len(packs)
        summed: dict[tuple[str, ...], Application] = {}
        for key, each in zip(keys, packs, strict=True):
            before = summed[key].states["idle"] if key in summed else 0
            summed[key] = Application({"idle": before + len(each.session_ms)})
        assert sum(a.connections for a in one.remember(summed, scrape * 15.0).values()) == sum(
            len(each.session_ms) for each in packs
        )
        sizes.append(sum(sys.getsizeof(table) for table in (one._rewritten, one._ignored, one._remembered)))
    assert one.overflowed_applications >= 9_900
    assert max(sizes[5:]) <= sizes[5] * 1.1


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
        overflowed = reading.overflowed_applications
    assert len({name for _, _, name in seen}) <= 11
    assert overflowed >= 40
    reader.close()


# Rewriting


def test_names_are_rewritten_in_order_and_empty_ones_say_so() -> None:
    rewrites = (Rewrite(re.compile(r"\d+"), "N"), Rewrite(re.compile("^appN$"), "the app"))
    one = namer(application_names=rewrites)
    assert names(one.keys([pack("app12"), pack("web 3"), pack(""), pack("   ")], 0.0)) == [
        "the app",
        "web N",
        UNSET,
        UNSET,
    ]


def test_renamed_connections_are_judged_apart_and_summed_together() -> None:
    """Two processes whose names differ in a number are two pools, and one application."""
    one = namer(application_names=(Rewrite(re.compile(r"-\d+$"), ""),))
    assert len(set(one.keys([pack("worker-1"), pack("worker-2")], 0.0))) == 1


# Grouping


def test_grouping_follows_the_setting() -> None:
    packs = [pack("app", address="10.0.0.1"), pack("app", address="10.0.0.2")]
    assert set(namer(group_by=("application_name",)).keys(packs, 0.0)) == {("app",)}
    by_address = namer(group_by=("application_name", "client_addr"), caps=Caps(client_addr=1))
    assert set(by_address.keys(packs, 0.0)) == {("app", "10.0.0.1"), ("app", OTHER)}
    assert by_address.overflowed_addresses == 1


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


def test_interactive_clients_are_exempt_by_name_or_by_user_where_there_is_none() -> None:
    one = namer()
    assert one.ignored(("db", "anna", "psql"))
    assert one.ignored(("db", "anna", "DBeaver 24.1.0 - Main"))
    assert not one.ignored(("db", "psql", "shop")), "an application is not exempt for its user's name"
    assert one.ignored(("db", "metabase", UNSET))
    assert not one.ignored(("db", "shop", UNSET))


def test_users_can_be_exempt() -> None:
    one = namer(ignored_users=(re.compile("dba_.*"),))
    assert one.ignored(("db", "dba_anna", "anything"))
    assert not one.ignored(("db", "shop", "anything"))
