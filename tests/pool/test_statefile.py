"""State files: one per process, locked while it lives; what is in them adds up, whatever happens to the processes."""

from __future__ import annotations

import os
import random
import runpy
import signal
import struct
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pgleak.pool import envelope, reading
from pgleak.pool.encoding import VERSION, encode
from pgleak.pool.folder import Folder, FolderError, StateName
from pgleak.pool.merged import collect_folder
from pgleak.pool.snapshot import (
    Backend,
    Checkout,
    EngineSite,
    Expected,
    Frame,
    Limits,
    Owner,
    PoolCounters,
    PoolSnapshot,
    ProcessIdentity,
    ProcessSnapshot,
    SiteStatistics,
)
from pgleak.pool.statefile import Reporter, StateFile
from servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SITE = "shop.orders:load"
FRAME = Frame("shop.orders", "load", "/srv/shop/orders.py", 12)


def a_checkout(number: int = 1, age: float = 3.0) -> Checkout:
    return Checkout(
        number, Backend(4711, 1000.0, "db:5432/shop"), 2000.0, age, "session", "pool", SITE, (FRAME, FRAME),
        Owner("thread", "worker-1", "alive"), (FRAME,), "GET /orders", Expected("report", 900.0),
    )  # fmt: skip


def a_pool(name: str = "shop", checkouts: int = 5, held: int = 1) -> PoolSnapshot:
    return PoolSnapshot(
        name=name,
        pool_class="QueuePool",
        application_name="shop",
        server="db:5432/shop",
        engines=1,
        connections_max=float("inf"),
        pending=2,
        idle=(Backend(4712, 1000.5, "db:5432/shop"), Backend(None, 1001.0, "")),
        checkouts=tuple(a_checkout(number) for number in range(held)),
        orphans=(Backend(4713, 999.0, "db:5432/shop"),),
        sites={SITE: SiteStatistics(40, 0.05)},
        made=(EngineSite((FRAME,), 3, 1),),
        counters=PoolCounters(
            checkouts=checkouts, opened=3, wait_seconds=0.5, closed={"returned": 1}, suspects={SITE: 2}
        ),
    )


def a_snapshot(*pools: PoolSnapshot, pid: int = 42) -> ProcessSnapshot:
    return ProcessSnapshot(ProcessIdentity(pid, 900.0, "boot", "host", "shop"), 2003.0, Limits(), pools or (a_pool(),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def write(folder: Path) -> Iterator[Callable[..., StateFile]]:
    """Write state files, as living processes would: locked until they are closed."""
    files: list[StateFile] = []

    def write_one(snapshot: ProcessSnapshot | None = None, stamp: float | None = None) -> StateFile:
        file = StateFile(folder)
        file.write(snapshot or a_snapshot(), time.monotonic() if stamp is None else stamp)
        files.append(file)
        return file

    yield write_one
    for file in files:
        if file.is_open:
            file.close()


def state_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.state"))


def metrics_of(folder: Path) -> dict[str, float]:
    """Every sample without its labels, those of one name added up."""
    totals: dict[str, float] = {}
    for family in collect_folder(folder):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0) + sample.value
    return totals


# What is written is what is read


def test_a_living_process_is_read_as_it_wrote(folder: Path, write: Callable[..., StateFile]) -> None:
    write()
    (reported,) = reading.read(folder).processes
    assert reported.snapshot == a_snapshot()
    assert not reported.stale


def test_counts_and_counters_are_sums_and_ages_are_maxima(folder: Path, write: Callable[..., StateFile]) -> None:
    write(a_snapshot(replace(a_pool(held=2), checkouts=(a_checkout(1, 7.0), a_checkout(2, 9.0))), pid=1))
    write(a_snapshot(a_pool(checkouts=7), pid=2))
    metrics = metrics_of(folder)
    assert metrics["sqlalchemy_pool_connections"] == 2 * 2 + 3
    assert metrics["sqlalchemy_pool_checkouts_total"] == 5 + 7
    assert metrics["sqlalchemy_pool_oldest_checkout_seconds"] == 9.0
    assert metrics["sqlalchemy_pool_pending_requests"] == 4
    assert metrics["sqlalchemy_pool_processes"] == 2
    assert metrics["pgleak_reporting_processes"] == 2
    assert metrics["pgleak_state_folder_readable"] == 1


# Processes that end


def test_an_ended_process_leaves_its_counters_and_nothing_else(folder: Path, write: Callable[..., StateFile]) -> None:
    write()
    write().close()
    metrics = metrics_of(folder)
    assert metrics["sqlalchemy_pool_processes"] == 1
    assert metrics["sqlalchemy_pool_connections"] == 3
    assert metrics["sqlalchemy_pool_checkouts_total"] == 10
    assert metrics_of(folder) == metrics  # folded meanwhile


def test_the_folder_stays_small_and_the_sum_true(folder: Path, write: Callable[..., StateFile]) -> None:
    for generation in range(1, 31):
        write().close()
        if generation % 10 == 0:
            assert reading.fold(folder) == 10
    assert state_files(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == [".lock", f"ended-{VERSION}"]
    assert reading.read(folder).ended["shop"].checkouts == 150


def test_being_killed_while_folding_counts_nothing_twice(folder: Path, write: Callable[..., StateFile]) -> None:
    """The sum was replaced, and the process was killed before it removed the files that are in it."""
    write().close()
    (path,) = state_files(folder)
    content = path.read_bytes()
    reading.fold(folder)
    path.write_bytes(content)
    path.chmod(0o600)
    assert reading.read(folder).ended["shop"].checkouts == 5
    assert reading.fold(folder) == 1
    assert reading.read(folder).ended["shop"].checkouts == 5
    assert state_files(folder) == []


def test_many_who_fold_and_read_at_once_agree(folder: Path, write: Callable[..., StateFile]) -> None:
    """Readers beside folders see the same sum at each moment."""
    for _ in range(40):
        write().close()
    code = (
        "import sys; from pgleak.pool import reading; folder = sys.argv[1]\n"
        "for _ in range(100):\n"
        "    reading.fold(folder)\n"
        "    assert reading.read(folder).ended['shop'].checkouts == 200, reading.read(folder)\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, folder]) for _ in range(3)]
    assert [other.wait(30) for other in others] == [0, 0, 0]


def test_a_fold_in_the_midst_of_a_reading_loses_nothing(
    folder: Path, write: Callable[..., StateFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters never fall, even where a reader could not get the lock: before the first fold there is none."""
    for _ in range(3):
        write().close()
    list_names = reading._state_names

    def fold_first(opened: Folder) -> Any:
        monkeypatch.undo()
        assert reading.fold(folder) == 3
        return list_names(opened)

    monkeypatch.setattr(reading, "_state_names", fold_first)
    assert reading.read(folder).ended["shop"].checkouts == 15


def test_call_sites_of_ended_processes_are_bounded(folder: Path, write: Callable[..., StateFile]) -> None:
    """Each deploy may bring new names; the sum keeps the 200 greatest and adds the rest up."""
    sites = {f"module{number}:function": 1 + number for number in range(500)}
    pool = replace(a_pool(), counters=PoolCounters(suspects=sites))
    write(a_snapshot(pool)).close()
    reading.fold(folder)
    kept = reading.read(folder).ended["shop"].suspects
    assert len(kept) == 201
    assert sum(kept.values()) == sum(sites.values())


def test_files_of_a_younger_process_survive_the_fold(folder: Path, write: Callable[..., StateFile]) -> None:
    write()
    write().close()
    assert reading.fold(folder) == 1
    assert len(reading.read(folder).processes) == 1


def test_what_killed_processes_left_half_made_is_cleared_away(folder: Path, write: Callable[..., StateFile]) -> None:
    """A file that was never finished, after a minute; one of an ended process that cannot be read, after an hour."""
    write().close()
    (damaged,) = state_files(folder)
    _truncate(damaged)
    half_made = folder / ".new-0123"
    half_made.touch(0o600)
    reading.fold(folder)
    assert half_made.exists()
    assert damaged.exists()
    for path, age in ((half_made, 100), (damaged, 4000)):
        os.utime(path, (time.time() - age, time.time() - age))
    reading.fold(folder)
    assert not half_made.exists()
    assert not damaged.exists()


# Processes that hang


def test_a_process_that_hangs_is_told_and_still_holds(folder: Path, write: Callable[..., StateFile]) -> None:
    write(stamp=time.monotonic() - 60)
    (reported,) = reading.read(folder).processes
    assert reported.stale
    assert reported.snapshot.pools[0].checkouts[0].age == pytest.approx(63, abs=2)
    assert metrics_of(folder)["pgleak_stale_processes"] == 1
    assert metrics_of(folder)["sqlalchemy_pool_connections"] == 3


# Files that are not what they seem


def _truncate(path: Path) -> None:
    os.truncate(path, 40)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def _rename(path: Path) -> None:
    path.rename(path.with_name(str(StateName(42, os.urandom(16)))))


def _link(path: Path) -> None:
    target = path.rename(path.with_name("elsewhere"))
    path.symlink_to(target)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _open_to_others(path: Path) -> None:
    path.chmod(0o666)


def _rewrite(payload: bytes) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        name = StateName.parse(path.name)
        assert name is not None
        with path.open("r+b") as file:
            envelope.write(file.fileno(), envelope.Record(0, 0.0, name.token, payload))

    return rewrite


def _claim_length(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(40)  # the length, after magic, sequence, stamp and token
        file.write(b"\xff\xff\xff\x7f")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncate, "truncated"),
        (lambda path: path.write_bytes(b""), "truncated"),
        (lambda path: path.write_bytes(os.urandom(4096)), "foreign"),
        (_flip, "checksum"),
        (_claim_length, "too_large"),
        (_rename, "renamed"),
        (_link, "not_a_file"),
        (_pipe, "not_a_file"),
        (_folder, "not_a_file"),
        (_open_to_others, "foreign_owner"),
        (_rewrite(b""), "malformed"),
        (_rewrite(b"\xff{"), "malformed"),
        (_rewrite(struct.pack("=6I", VERSION, 2**32 - 1, 2**32 - 1, 0, 0, 0)), "malformed"),
        (_rewrite(struct.pack("=6I", VERSION, 0, 0, 0, 0, 0)), "malformed"),
        (_rewrite(encode(a_snapshot())[:-1]), "malformed"),
        (_rewrite(struct.pack("=I", VERSION + 1) + encode(a_snapshot())[4:]), "version"),
    ],
    ids=[
        "truncated", "empty", "random", "bit flipped", "length", "renamed", "link", "pipe", "folder", "open to others",
        "nothing", "too short", "columns without end", "no columns", "a byte less", "version",
    ],
)  # fmt: skip
def test_a_file_that_is_not_ours_or_damaged_is_passed_over_with_its_reason(
    folder: Path, write: Callable[..., StateFile], damage: Callable[[Path], object], reason: str
) -> None:
    write().close()
    damage(state_files(folder)[0])
    write()
    found = reading.read(folder)
    assert found.skipped == {reason: 1}
    assert len(found.processes) == 1
    assert metrics_of(folder)["pgleak_state_files_skipped"] == 1
    assert reason in reading.REASONS
    reading.fold(folder)
    assert len(reading.read(folder).processes) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_passed_over(folder: Path, write: Callable[..., StateFile]) -> None:
    write().close()
    os.chown(state_files(folder)[0], 65534, 65534)
    assert reading.read(folder).skipped == {"foreign_owner": 1}


def test_a_damaged_sum_is_told_and_replaced(folder: Path, write: Callable[..., StateFile]) -> None:
    write().close()
    reading.fold(folder)
    (folder / f"ended-{VERSION}").write_bytes(b"nonsense" * 10)
    assert reading.read(folder).skipped == {"foreign": 1}
    write().close()
    reading.fold(folder)
    assert reading.read(folder).ended["shop"].checkouts == 5


def test_a_write_that_was_torn_leaves_the_one_before(folder: Path, write: Callable[..., StateFile]) -> None:
    file = write()
    file.write(a_snapshot(a_pool(checkouts=6)), time.monotonic())
    (path,) = state_files(folder)
    with path.open("r+b") as torn:
        torn.seek((4 << 20) + 100)  # in the second slot
        torn.write(b"torn")
    (reported,) = reading.read(folder).processes
    assert reported.snapshot.pools[0].counters.checkouts == 5


def test_a_reader_beside_a_busy_writer_never_finds_a_damaged_file(folder: Path) -> None:
    code = textwrap.dedent("""
        import sys, time
        sys.path.insert(0, sys.argv[2])
        from test_statefile import StateFile, a_pool, a_snapshot
        file = StateFile(sys.argv[1])
        for number in range(100_000):
            file.write(a_snapshot(a_pool(checkouts=number, held=number % 50)), time.monotonic())
    """)
    tests = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    writer = subprocess.Popen(
        [sys.executable, "-c", code, folder, tests[1]], env={**os.environ, "PYTHONPATH": os.pathsep.join(tests)}
    )
    try:
        wait_until(lambda: reading.read(folder).processes, 20)
        last = 0
        for _ in range(300):
            found = reading.read(folder)
            assert not found.skipped
            (reported,) = found.processes
            assert reported.snapshot.pools[0].counters.checkouts >= last
            last = reported.snapshot.pools[0].counters.checkouts
        assert last > 0
    finally:
        writer.kill()  # in the midst of a write
        writer.wait()
    assert reading.read(folder).ended["shop"].checkouts >= last


# The folder


def test_the_folder_and_the_files_are_private(folder: Path, write: Callable[..., StateFile]) -> None:
    before = os.umask(0)
    try:
        write()
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert state_files(folder)[0].stat().st_mode & 0o777 == 0o600


def _missing(path: Path) -> Path:
    return path / "nowhere" / "state"


def _let_others_in(path: Path) -> Path:
    path.mkdir()
    path.chmod(0o750)
    return path


def _link_to_folder(path: Path) -> Path:
    (path.parent / "real").mkdir(mode=0o700)
    path.symlink_to(path.parent / "real")
    return path


def _plain_file(path: Path) -> Path:
    path.write_text("")
    return path


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (_missing, "missing"),
        (_let_others_in, "not_private"),
        (_link_to_folder, "not_a_folder"),
        (_plain_file, "not_a_folder"),
    ],
)
def test_a_folder_that_cannot_be_trusted_is_used_by_nobody(
    folder: Path, caplog: pytest.LogCaptureFixture, prepare: Callable[[Path], Path], reason: str
) -> None:
    """The reader says so by a metric, the writer once in the log; the application goes on."""
    path = prepare(folder)
    assert reading.read(path).problem == reason
    assert metrics_of(path)["pgleak_state_folder_readable"] == 0
    reporter = Reporter(path, a_snapshot)
    for _ in range(3):
        reporter.write()
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_written_by_nobody_and_read_by_root(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(FolderError, match="belongs to user 65534"):
        Folder(folder, create=True)
    assert reading.read(folder).problem == ""
    assert reading.fold(folder) == 0
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_said_once_and_disturbs_nobody(folder: Path) -> None:
    code = textwrap.dedent("""
        import logging, resource, sys
        sys.path[:0] = sys.argv[2:]
        logging.basicConfig(level="WARNING", stream=sys.stdout)
        from test_statefile import Reporter, a_snapshot
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # every write fails
        reporter = Reporter(sys.argv[1], a_snapshot)
        reporter.write()
        reporter.write()
        print("goes on")
    """)
    here = Path(__file__).parent
    ran = subprocess.run(
        [sys.executable, "-c", code, folder, here.parent, here], capture_output=True, text=True, timeout=30, check=True
    )
    assert ran.stdout.count("cannot keep its state file") == 1
    assert ran.stdout.endswith("goes on\n")


# The process that writes


def program(body: str) -> str:
    """A program that reports a snapshot of its own, with `ensure` as the instrumentation calls it."""
    return textwrap.dedent("""
        import os, signal, sys, time
        {before}
        sys.path[:0] = sys.argv[1:]
        from test_statefile import a_pool, a_snapshot
        from pgleak.pool import statefile
        statefile.INTERVAL = 0.1
        calls = 0
        def read():
            global calls
            calls += 1
            return a_snapshot(a_pool(checkouts=calls), pid=os.getpid())
        {body}
    """).format(before="", body=textwrap.indent(textwrap.dedent(body), " " * 0).strip())


def start(code: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, "-c", code, here.parent, here],
        env={**os.environ, "PGLEAK_DIR": str(folder)},
        text=True,
        stdout=subprocess.PIPE,
        **options,
    )


def pids(folder: Path) -> set[int]:
    return {reported.snapshot.process.pid for reported in reading.read(folder).processes}


def test_the_file_is_kept_up_to_date_and_never_keeps_the_process_alive(folder: Path) -> None:
    process = start(program("statefile.ensure(read); input()"), folder, stdin=subprocess.PIPE)
    wait_until(lambda: pids(folder) == {process.pid}, 20)
    before = reading.read(folder).processes[0].snapshot.pools[0].counters.checkouts
    wait_until(lambda: reading.read(folder).processes[0].snapshot.pools[0].counters.checkouts > before + 2)
    began = time.monotonic()
    process.communicate("\n", timeout=10)
    assert process.returncode == 0
    assert time.monotonic() - began < 5
    assert pids(folder) == set()


def test_the_last_state_of_a_process_that_ends_is_not_lost(folder: Path) -> None:
    """However short its life was: what it counted is written as it ends."""
    process = start(program("statefile.INTERVAL = 60; statefile.ensure(read); time.sleep(0.5); calls = 999"), folder)
    process.communicate(timeout=20)
    assert reading.read(folder).ended["shop"].checkouts == 1000


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing_report_for_themselves_to_the_end(
    folder: Path, method: str, tmp_path: Path
) -> None:
    """They end without running atexit."""
    script = tmp_path / "children.py"
    script.write_text(
        textwrap.dedent(f"""
        import multiprocessing, os, sys
        sys.path[:0] = sys.argv[1:]
        from test_statefile import a_pool, a_snapshot
        from pgleak.pool import statefile
        statefile.INTERVAL = 60
        checkouts = 1
        def read():
            return a_snapshot(a_pool(checkouts=checkouts), pid=os.getpid())
        def work():
            global checkouts
            statefile.ensure(read)
            checkouts = 100
        if __name__ == "__main__":
            statefile.ensure(read)
            context = multiprocessing.get_context("{method}")
            children = [context.Process(target=work) for _ in range(2)]
            for child in children: child.start()
            for child in children: child.join()
        """)
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PGLEAK_DIR": str(folder)}
    subprocess.run([sys.executable, script, here.parent, here], env=environment, check=True, timeout=40)
    assert reading.read(folder).ended["shop"].checkouts == 201


def test_a_killed_parent_vanishes_although_its_child_lives(folder: Path) -> None:
    """The child inherited the descriptor of a locked file; it must not keep the lock."""
    body = """
    statefile.ensure(read)
    time.sleep(0.3)
    child = os.fork()
    if child == 0:
        statefile.ensure(read)
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(30)
    """
    process = start(program(body), folder)
    assert process.stdout is not None
    numbers = {int(process.stdout.readline()) for _ in range(2)}
    child = (numbers - {process.pid}).pop()
    try:
        wait_until(lambda: pids(folder) == numbers, 20)
        process.kill()
        process.wait()
        wait_until(lambda: pids(folder) == {child})
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()
    wait_until(lambda: pids(folder) == set())


def test_a_stopped_process_goes_stale_and_comes_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "STALE_AFTER", 0.7)
    process = start(program("statefile.ensure(read); time.sleep(30)"), folder)
    try:
        wait_until(lambda: pids(folder) == {process.pid}, 20)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: reading.read(folder).processes[0].stale)
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: not reading.read(folder).processes[0].stale)
    finally:
        process.kill()
        process.communicate()


def test_a_file_that_a_cleaner_removed_comes_back(folder: Path) -> None:
    reporter = Reporter(folder, a_snapshot)
    reporter.write()
    state_files(folder)[0].unlink()
    reporter.write()
    assert len(reading.read(folder).processes) == 1
    reporter.stop()


def test_it_works_on_greenlets_under_gevent(folder: Path) -> None:
    body = """
    statefile.ensure(read)
    time.sleep(0.5)
    child = os.fork()
    if child == 0:
        statefile.ensure(read)
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(20)
    """
    code = program(body).replace(
        "import os, signal, sys, time", "from gevent import monkey; monkey.patch_all()\nimport os, signal, sys, time", 1
    )
    process = start(code, folder)
    assert process.stdout is not None
    numbers = {int(process.stdout.readline()) for _ in range(2)}
    try:
        wait_until(lambda: pids(folder) == numbers, 20)
    finally:
        for number in numbers:
            os.kill(number, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_snapshot_too_large_for_its_slot_is_written_without_stacks(
    folder: Path, write: Callable[..., StateFile]
) -> None:
    frames = [Frame("m", "f", f"/srv/{'x' * 900}/{number}.py", number) for number in range(5000)]
    checkouts = tuple(replace(a_checkout(number), frames=(frame,), standing=()) for number, frame in enumerate(frames))
    write(a_snapshot(replace(a_pool(), checkouts=checkouts)))
    (reported,) = reading.read(folder).processes
    assert len(reported.snapshot.pools[0].checkouts) == 5000
    assert reported.snapshot.pools[0].checkouts[0].frames == ()


def test_sums_are_true_for_any_mixture_of_processes(folder: Path, write: Callable[..., StateFile]) -> None:
    """Random pools in random processes, some ended, folds in between: the sum is the sum of all, at every step."""
    chance = random.Random(4711)
    expected = 0
    living: list[StateFile] = []
    for step in range(40):
        checkouts = chance.randrange(1000)
        expected += checkouts
        living.append(write(a_snapshot(a_pool(chance.choice(["a", "b"]), checkouts=checkouts), pid=step + 1)))
        if chance.random() < 0.6:
            living.pop(chance.randrange(len(living))).close()
        if chance.random() < 0.2:
            reading.fold(folder)
        found = reading.read(folder)
        assert len(found.processes) == len(living)
        total = sum(pool.counters.checkouts for each in found.processes for pool in each.snapshot.pools)
        assert total + sum(counters.checkouts for counters in found.ended.values()) == expected


def test_sixty_four_workers_are_read_in_a_small_multiple_of_opening_their_files(tmp_path: Path) -> None:
    """Under 20 ms where nothing else runs (benchmarks/merge.py); as a ratio here, so that a busy machine does not matter."""
    merge = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "merge.py")))
    files = merge.fill(tmp_path / "state")
    floor, merged = merge.medians(tmp_path / "state", merge.touch, merge.merge, rounds=9)
    for file in files:
        file.close()
    assert merged < 25 * floor
