"""YAML is read strictly, every mistake has its place, and no message quotes the file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pgleak import smallfile
from pgleak.yamlfile import Duplicate, YamlError, parse, read


def test_plain_data_comes_out() -> None:
    text = "a: 1\nb: [x, 2.5, true, null]\nc: {d: 2024-01-15}\n"
    assert parse(text, "f.yml").data == {"a": 1, "b": ["x", 2.5, True, None], "c": {"d": "2024-01-15"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b: c", "f.yml:1:5: mapping values are not allowed here"),
        ("x: 1\na: [1", "f.yml:2:6: expected ',' or ']', but got '<stream end>'"),
        ("a: 'M4RK", "f.yml:1:9: found unexpected end of stream"),
        ("a: *M4RK", "f.yml:1:4: found undefined alias"),
        ("a: !M4RK x", "f.yml:1:4: could not determine a constructor for the tag"),
        ("a: !!python/name:M4RK x", "f.yml:1:4: could not determine a constructor for the tag"),
        (
            "a:\n  - b: 1\n   c: M4RK",
            "f.yml:3:4: expected <block end>, but found '<block mapping start>'; the indentation",
        ),
        ("a: 1\n  b: M4RK", "f.yml:2:4: mapping values are not allowed here; look at the indentation"),
        ("a: @M4RK", "f.yml:1:4: found character '@' that cannot start any token; put the value in quotes"),
        ("a: %M4RK", "f.yml:1:4: found character '%' that cannot start any token; put the value in quotes"),
        ("a: 1\n\tb: M4RK", "f.yml:2:1: found character '\\t' that cannot start any token; indent with spaces"),
        ('a: "M4RK\\q"', "f.yml:1:10: found unknown escape character 'q'"),
        ("a: 1\n---\nb: M4RK", "f.yml:2:1: expected a single document in the stream, but found another document"),
        ("a: &M4RK x\nb: &M4RK y", "f.yml:2:4: an anchor (&name) stands twice"),
        ("a: !!int M4RK", "f.yml:1:4: a value that does not fit its type"),
        ("a: !!timestamp M4RK", "f.yml:1:4: a value that does not fit its type"),
        ("a: !!bool M4RK", "f.yml:1:4: a value that does not fit its type"),
        ("? [M4RK]\n: b", "f.yml:1:3: found unhashable key"),
        ("x: 1\na: M4RK\x01", "f.yml:2: a control character, which YAML does not allow"),
        ("- " * 5000, "f.yml: nested too deeply"),
    ],
)
def test_a_mistake_has_its_place_and_is_not_quoted(text: str, said: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse(text, "f.yml")
    assert str(caught.value).startswith(said)
    assert "M4RK" not in str(caught.value)
    assert caught.value.__context__ is None


def test_keys_that_stand_twice_are_noted_wherever_they_are() -> None:
    text = "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: {e: 1, e: 2}\n"
    assert parse(text, "f.yml").duplicates == (
        Duplicate("c", 5, 3, first_line=3, above=("b",)),
        Duplicate("e", 6, 11, first_line=6, above=("a",)),
        Duplicate("a", 6, 1, first_line=1),
    )


def test_a_merged_key_may_be_given_anew() -> None:
    """`<<` brings in common values; giving one of them again is what it is for.

    Not with keys of one letter, which no settings have: PyYAML 6.0.4 tells keys apart by the identity of their strings, and
    of one letter there is one string for all.
    """
    text = "a: &a {port: 1, host: 2}\nb: &b\n  <<: *a\n  port: 3\nc:\n  <<: *b\n  host: 4\n"
    document = parse(text, "f.yml")
    assert document.data == {"a": {"port": 1, "host": 2}, "b": {"port": 3, "host": 2}, "c": {"port": 3, "host": 4}}
    assert document.duplicates == ()


def test_of_several_mappings_that_are_merged_the_first_wins() -> None:
    document = parse("one: &1 {key: 1, own: 1}\ntwo: &2 {key: 2, other: 2}\nall: {<<: [*1, *2], own: 3}\n", "f.yml")
    assert isinstance(document.data, dict)
    assert document.data["all"] == {"key": 1, "own": 3, "other": 2}
    assert document.duplicates == ()


def test_merges_of_merges_cost_no_more_than_their_keys() -> None:
    """Ten levels of ten references each would be ten thousand million pairs."""
    levels = [f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 10)}]}}" for n in range(1, 11)]
    document = parse("\n".join(["l0: &l0 {key: 1}", *levels, "last: *l10"]), "f.yml")
    assert isinstance(document.data, dict)
    assert document.data["last"] == {"key": 1}


def test_only_mappings_can_be_merged() -> None:
    with pytest.raises(YamlError, match=r"^f\.yml:1:\d+: expected a mapping, or a list of mappings, after <<$"):
        parse("a: {<<: [{b: 1}, M4RK]}", "f.yml")


def test_files_are_utf8_with_or_without_a_mark(tmp_path: Path) -> None:
    file = tmp_path / "f.yml"
    file.write_bytes("\ufeffa: ä".encode())
    assert read(file).data == {"a": "ä"}
    file.write_bytes(b"a: 1\nb: M4RK\xe4\n")
    with pytest.raises(YamlError, match=r"f\.yml:2: a byte that is not UTF-8$") as caught:
        read(file)
    assert caught.value.__context__ is None


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "none.yml", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (Path("/dev/zero"), "neither a file nor a pipe"),
    ):
        with pytest.raises(YamlError) as caught:
            read(path)
        assert str(caught.value) == f"{path}: cannot be read: {reason}"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "f.yml"
    file.write_bytes(b"a: 1\n".ljust(smallfile.LARGEST, b"#"))
    assert read(file).data == {"a": 1}
    file.write_bytes(b"a: 1\n".ljust(smallfile.LARGEST, b"#") + "ä".encode())  # cut in the middle of a character
    with pytest.raises(YamlError) as caught:
        read(file)
    assert str(caught.value) == f"{file}: cannot be read: too large: 1,048,576 bytes are allowed"


def test_a_pipe_is_read_to_its_end_and_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = "a: 1\n" + "#" * 100_000 + "\nb: 2\n"  # more than a pipe holds at once
    writer = threading.Thread(target=pipe.write_text, args=(text,))
    writer.start()
    assert read(pipe).data == {"a": 1, "b": 2}
    writer.join(10)

    monkeypatch.setattr(smallfile, "_PATIENCE", 0.1)
    with pytest.raises(YamlError, match=r"pipe: cannot be read: nothing came out of the pipe within 0\.1 s$"):
        read(pipe)
