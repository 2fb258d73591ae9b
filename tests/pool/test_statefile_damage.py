"""Whatever lies in the folder and whoever owns it: passed over with a reason, and nobody is disturbed."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgleak.pool import envelope, reading
from pgleak.pool.encoding import VERSION, encode
from pgleak.pool.folder import Folder, FolderError, StateName
from pgleak.pool.statefile import Reporter, StateFile
from servers import wait_until
from state_support import a_pool, a_snapshot, metrics_of, state_files, truncate

if TYPE_CHECKING:
    from collections.abc import Callable


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
        (truncate, "truncated"),
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
        from pgleak.pool.statefile import StateFile
        from state_support import a_pool, a_snapshot
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
        from pgleak.pool.statefile import Reporter
        from state_support import a_snapshot
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
