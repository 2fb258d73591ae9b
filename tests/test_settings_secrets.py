"""A settings file may be as wrong as it likes: what is said about it holds no password."""

from __future__ import annotations

import re
import tempfile
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgleak.settings import SettingsError, from_dict, from_yaml


@pytest.mark.parametrize(
    "target",
    [
        "postgresql://u:M4RK@db1/x",
        {"postgresql://u:M4RK@db1/x": None},
        {"dsn host=db1 password=M4RK": 1},
        {"u:M4RK@db1": 1},
        {"name": "postgresql://u:M4RK@db1/x"},
        {"name": "host=db1 password=M4RK"},
        {"name": "u:M4RK@db1/x"},
        {"name": "a", "dns": "postgresql://u:M4RK@db1/x"},
        {"name": "a", "password": "M4RK"},
        {"name": "a", "dsm": "M4RK"},
        {"name": "a", "servce": "M4RK"},
        {"name": "a", "canary_password": "M4RK"},
        {"name": "a", "canary": {"interval_pw": "M4RK"}},
        {"name": "a", "service": "postgresql://u:M4RK@db1/x"},
        {"name": "a", "service": "u:M4RK@db1/x"},
        {"name": "a", "password_file": "u:M4RK@db1/x"},
        {"name": "a", "canary": {"user": "u:M4RK@db1"}},
        {"name": "a", "dsn": {"password": "M4RK"}},
        {"name": "a", "dsn": ["M4RK"]},
        {"name": "a", "password_file": {"M4RK": "M4RK"}},
        {"name": "a", "canary": "postgresql://u:M4RK@db1/x"},
        {"name": "a", "canary": {"user": "host=db1 password = M4RK"}},
        {"name": "a", "canary": {"password": "M4RK", "user": "a"}},
    ],
)
def test_a_password_in_the_wrong_place_is_not_shown(target: object) -> None:
    with pytest.raises(SettingsError) as caught:
        from_dict({"targets": [target]}, environ={})
    assert "M4RK" not in f"{caught.value} {caught.value!r} {caught.value.problems}"


_FILE = """\
listen: 127.0.0.1:10432
targets:
  - name: orders
    dsn: postgresql://watcher:M4RK@db1.example.com:5432/postgres?sslmode=require
    canary:
      dsn: 'host=db1 dbname=x user=app password=M4RK'
  - name: billing
    dsn: "postgresql://watcher:M4RK@db2/x"
    canary: {dsn: postgresql://app:M4RK@db2/x, interval: 60}
"""
_DAMAGEABLE = [match.start() for match in re.finditer(".", _FILE, re.DOTALL)]


@settings(deadline=None, max_examples=300)
@given(
    position=st.sampled_from(_DAMAGEABLE),
    insert=st.sampled_from(["", *"x:@'\"{}[],&*!|>%#-?\n\t =\0é"]),
    cut=st.integers(0, 1),
)
def test_however_a_file_is_broken_its_passwords_stay_secret(position: int, insert: str, cut: int) -> None:
    """One character anywhere is changed, added or removed: neither the report nor the settings show a password."""
    text = _FILE[:position] + insert + _FILE[position + cut :]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pgleak.yml")
        file.write_text(text)
        try:
            shown = repr(from_yaml(file, environ={}))
        except SettingsError as error:
            shown = "".join(traceback.format_exception(error)) + f"{error!r} {error.problems} {error.__context__!r}"
    assert "M4RK" not in shown
