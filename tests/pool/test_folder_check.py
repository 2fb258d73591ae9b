"""`pgleak check` on the folder of an application: whether it can be read, who reports there, what is passed over."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from pgleak.cli import main
from pgleak.finding import failed
from pgleak.pool.check import check
from pgleak.pool.folder import Folder, FolderError
from pgleak.pool.statefile import StateFile
from state_support import a_snapshot, state_files, truncate

if TYPE_CHECKING:
    from pathlib import Path

    from pgleak.finding import Finding


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pools"
    made.mkdir(mode=0o700)
    return made


def findings(folder: Path) -> dict[str, Finding]:
    return {each.subject: each for each in check(folder)}


def test_processes_that_report_are_counted_and_their_pools_named(folder: Path) -> None:
    with_word = [StateFile(folder) for _ in range(2)]
    for file in with_word:
        file.write(a_snapshot(), time.monotonic())
    found = findings(folder)
    for file in with_word:
        file.close()
    assert {each.level for each in found.values()} == {"ok"}
    assert "mode 0700" in found["folder"].text
    assert found["processes"].text == "2 report; pools: shop"


def test_a_folder_where_nobody_reports_is_a_warning_with_the_way_to_do_it(folder: Path) -> None:
    found = findings(folder)
    assert found["processes"].level == "warn"
    assert f"PGLEAK_DIR={folder}" in found["processes"].remedy
    assert not failed(found.values())


def test_files_that_are_skipped_are_counted_by_reason(folder: Path) -> None:
    file = StateFile(folder)
    file.write(a_snapshot(), time.monotonic())
    truncate(state_files(folder)[0])
    found = findings(folder)
    file.close()
    assert (found["files"].level, found["files"].text) == ("warn", "1 skipped: 1 truncated")


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_folder_that_applications_refuse_fails(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    found = findings(folder)
    assert failed(found.values())
    assert f"mode {mode:04o} lets other users in; chmod 0700 it" in found["folder"].text


def test_a_folder_that_is_not_there_or_is_none_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "does not exist" in findings(tmp_path / "none")["folder"].text
    assert "no folder" in findings(tmp_path / "file")["folder"].text
    assert failed(check(tmp_path / "file"))


def test_a_sidecar_is_checked_by_its_settings_or_its_option(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "pgleak.yml"
    config.write_text(f"pool_dir: {folder}\n")
    for arguments in (["--config", str(config)], ["--pool-dir", str(folder)]):
        assert main(["check", *arguments]) == 0
        said = capsys.readouterr()
        assert f"pools ({folder})" in said.out
        assert "warn  processes       no process reports" in said.out
    folder.chmod(0o755)
    assert main(["check", "--config", str(config)]) == 1


def test_a_folder_that_cannot_be_made_is_said_with_the_command_that_makes_it(tmp_path: Path) -> None:
    wanted = tmp_path / "missing" / "pools"
    with pytest.raises(FolderError) as caught:
        Folder(wanted, create=True)
    assert f"install -d -m 700 -o {os.geteuid()} {wanted}" in str(caught.value)
