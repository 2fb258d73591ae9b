"""Where a server is: every form that libpq takes, and a password that never comes out."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import re
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import psycopg2
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import make_dsn, parse_dsn

from pgleak.dsn import Dsn, DsnError
from pgleak.libpq import OPTIONS
from pgleak.secret import SECRET_OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import NewPostgres

NOWHERE: dict[str, str] = {}


def everything_shown(error: BaseException) -> str:
    """All text that a log, a page or an error tracker could take from an exception."""
    texts = ["".join(traceback.format_exception(type(error), error, error.__traceback__))]
    seen: BaseException | None = error
    while seen is not None:
        texts += [str(seen), repr(seen), repr(seen.args), repr(vars(seen))]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(texts)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("postgresql://u:secret@db1/orders", "db1:5432/orders"),
        ("postgres://u:secret@db1:6543/orders?sslmode=require", "db1:6543/orders"),
        ("host=db1 port=6543 dbname=orders user=u password=secret", "db1:6543/orders"),
        ("host=a,b port=5432,5433 dbname=x", "a:5432,b:5433/x"),
        ("postgresql://u@a:5432,b:5433/x?target_session_attrs=read-write", "a:5432,b:5433/x"),
        ("host=a,b port=6543 dbname=x", "a:6543,b:6543/x"),
        ("postgresql://u@[::1]:6543/x", "[::1]:6543/x"),
        ("hostaddr=10.0.0.1 dbname=x", "10.0.0.1:5432/x"),
        ("host=/var/run/postgresql dbname=x", "/var/run/postgresql:5432/x"),
        ("postgresql://%2Fvar%2Frun%2Fpostgresql/x", "/var/run/postgresql:5432/x"),
        ("dbname=x", "local socket, port 5432, database x"),
        ("host=db1 user=watcher", "db1:5432/watcher"),
        ("service=orders password=secret", "service=orders"),
        ("  postgresql://u:secret@db1/orders\n", "db1:5432/orders"),
        ("host=db1\nport=6543\ndbname='my db'\n", "db1:6543/my db"),
        ("postgresql://u:se?c#r&e=t@db1/orders", "db1:5432/orders"),
    ],
)
def test_the_address_says_where_and_nothing_else(text: str, address: str) -> None:
    dsn = Dsn.parse(text, environ=NOWHERE)
    assert dsn.address == address
    assert repr(dsn) == str(dsn) == f"<Dsn {address}>"


@pytest.mark.parametrize(
    ("environ", "address", "server"),
    [
        ({"PGHOST": "db1", "PGPORT": "6543", "PGDATABASE": "orders"}, "db1:6543/orders", "db1:6543"),
        ({"PGHOST": "a,b", "PGUSER": "watcher"}, "a:5432,b:5432/watcher", "a:5432,b:5432"),
        ({"PGSERVICE": "orders", "PGPASSWORD": "secret"}, "service=orders", "orders"),
        ({"PGDATABASE": "orders"}, "local socket, port 5432, database orders", "localhost:5432"),
    ],
)
def test_the_address_follows_libpqs_own_environment(environ: dict[str, str], address: str, server: str) -> None:
    dsn = Dsn.from_environment(environ=environ)
    assert (dsn.address, dsn.server) == (address, server)
    assert dsn.parameters() == {}
    assert dsn.parameters(application_name="pgleak", connect_timeout=5) == {
        "application_name": "pgleak",
        "connect_timeout": "5",
    }


def test_what_a_dsn_leaves_out_comes_from_the_environment() -> None:
    environ = {"PGHOST": "elsewhere", "PGPORT": "6543", "PGDATABASE": "orders", "PGSERVICE": "s"}
    assert Dsn.parse("host=db1", environ=environ).address == "db1:6543/orders"
    assert Dsn.parse("dbname=x", environ=environ).address == "service=s"


def test_a_service_is_left_to_libpq() -> None:
    dsn = Dsn.from_service("orders", environ=NOWHERE)
    assert dsn.parameters() == {"service": "orders"}
    assert (dsn.address, dsn.server) == ("service=orders", "orders")


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["dbname", "user", "password", "application_name", "options"]),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
        min_size=1,
    )
)
def test_every_option_survives_whatever_characters_it_has(options: dict[str, str]) -> None:
    """What is handed to the driver is what libpq reads from the same text."""
    options = {name: value for name, value in options.items() if "://" not in value and "=" not in value}
    text = make_dsn(**options) or "host=x"
    assert Dsn.parse(text, environ=NOWHERE).parameters() == parse_dsn(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("postgresql://u:pa%zz@db1/x", "write % as %25"),
        ("postgresql://u:pa%ddss@db1/x", "no UTF-8 text; in a user name or password write % as %25"),
        ("postgresql://u:pa@ss@db1/x", "@ as %40"),
        ("postgresql://u:pa/ss@db1/x", "/ as %2F"),
        ("postgresql://u:5432/ss@db1/x", "/ as %2F"),
        ("postgresql://u:pass", "the port is not a number from 1 to 65535"),
        ("host=db1 port=99999", "the port is not a number from 1 to 65535"),
        ("host=db1 port=५४३२", "the port is not a number from 1 to 65535"),
        ("host=a,b,c port=1,2", "one port for each"),
        ("hots=db1", "did you mean host?"),
        ("host=db1 pasword=secret", "did you mean password?"),
        ("postgresql://db1/x?sslmod=require", "did you mean sslmode?"),
        ("host=db1 zzzzzzzz=1", "an option that libpq does not know"),
        ("secret", "neither a URI (postgresql://...) nor key=value pairs"),
        ("host=db1 password=two words", "single quotes"),
        ("host=db1 password='secret", "a single quote is never closed"),
        ("postgresql://[::1/x", "the [ of an IPv6 address is never closed"),
        ("postgresql://[]/x", "between [ and ] is empty"),
        ("postgresql://[::1]x/x", "only a : or a /"),
        ("postgresql://db1/x?sslmode", "has no ="),
        ("postgresql://db1/x?sslmode=a=b", "more than one ="),
        ("postgresql://db1/x%00", "NUL"),
        ("host=db1 password=a\0b", "NUL"),
        ("host=db1 password=\udc80", "UTF-8"),
        ("postgresql+psycopg2://u:p@db1/x", "SQLAlchemy"),
        ("jdbc:postgresql://db1/x", "must start with postgresql://"),
        ("PostgreSQL://db1/x", "in lower case"),
        ("mysql://u:p@db1/x", "not a PostgreSQL URI"),
        ("dbname=postgresql://u:p@db1/x", "give only its name"),
        ("service=postgresql://u:p@db1/x", "the service is itself a connection string"),
        ("service=u:p@db1", "the service is itself a connection string"),
        ("host=postgresql://u:p@db1/x", "in the host"),
        ("host=u:p@db1", "in the host"),
        ("host=db1 sslmode=required", "sslmode must be one of disable, allow, prefer, require,"),
    ],
)
def test_a_wrong_dsn_is_explained_without_being_quoted(text: str, said: str) -> None:
    with pytest.raises(DsnError) as caught:
        Dsn.parse(text, environ=NOWHERE)
    assert said in str(caught.value)
    for quoted in ("secret", "pasword", "zzzz", "two words", "words", "pa%zz", "pa@ss", "pa/ss", "u:p"):
        assert quoted not in everything_shown(caught.value)


_TEMPLATES = (
    "postgresql://u:{}@db1/x",
    "postgresql://u:{}@db1:5432/x?sslmode=require",
    "postgresql://u:{}@[::1/x",
    "postgresql://u:{}@db1:port/x",
    "postgresql://u:{}",
    "postgresql://:{}@",
    "postgresql://u@db1/x?password={}",
    "postgresql://u@db1/x?password={}&sslmode",
    "postgres:/u:{}@db1/x",
    "Postgresql://u:{}@db1/x",
    "postgresql+asyncpg://u:{}@db1/x",
    "host=db1 password={}",
    "host=db1 password='{}'",
    "host=db1 password='{}",
    "password = {} host = db1 port = x",
    "host=db1 sslpassword={} sslmode=x",
    "host=db1 pasword={}",
    "host=db1,db2 port=1,2,3 password='{}'",
    "dbname='postgresql://u:{}@db1/x'",
    "dbname='host=db1 password={}'",
    "host=db1 {}",
)


@settings(deadline=None)
@given(
    template=st.sampled_from(_TEMPLATES),
    middle=st.text("@/:%?#&='\"\\[],; \t\n\0é\udc80+$ab19", max_size=6),
    cut=st.integers(0, 4),
)
@example(template=_TEMPLATES[0], middle="/", cut=0)
@example(template=_TEMPLATES[0], middle="%", cut=0)
@example(template=_TEMPLATES[0], middle="@", cut=0)
def test_no_part_of_a_password_ever_comes_out(template: str, middle: str, cut: int) -> None:
    """However the text is broken: no error, no traceback, no address and no repr shows a piece of the password."""
    text = template.format(f"M4RK{middle}S3CR")
    text = text[: len(text) - cut] if not template.endswith("{}") else text
    # Where the only @ of a URI is ours, what follows it is the host, by every reading.
    assume("@" not in middle or not template.startswith("postgresql://") or text.partition("?")[0].count("@") > 1)
    try:
        dsn = Dsn.parse(text, environ=NOWHERE)
    except DsnError as error:
        shown = everything_shown(error)
    else:
        shown = f"{dsn!r} {dsn} {dsn.address} {dsn.server}"
    assert "M4RK" not in shown
    assert "S3CR" not in shown


@pytest.mark.parametrize("password", ["s3cret", "p@ss/w:rd%", "it's \\ a b+c", "pässwörd", "***", "a.b*c["])
def test_redact_knows_a_password_in_each_of_its_forms(password: str) -> None:
    dsn = Dsn.parse(f"postgresql://u:{quote(password, safe='')}@db1/x", environ=NOWHERE)
    assert dsn.parameters()["password"] == password
    encoded = quote(password, safe="")
    lower = re.sub("%..", lambda escape: escape[0].lower(), encoded)
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    for form in (password, encoded, lower, quote(password), quote_plus(password), escaped):
        assert dsn.redact(f"FATAL: {form}!") == "FATAL: ***!"
    assert dsn.redact("nothing to hide") == "nothing to hide"


@pytest.mark.parametrize("password", ["q", "server", "postgres", "x1", "-"])
def test_a_short_or_plain_password_is_hidden_where_it_is_quoted_and_leaves_other_words_alone(password: str) -> None:
    dsn = Dsn({"password": password}, environ=NOWHERE)
    for quotation in ('said "{}"', "p={} user=u", "//u:{}@db1/x", "it is {}", "({})", "{}"):
        assert dsn.redact(quotation.format(password)) == quotation.format("***")
    other = "conquer PostgreSQL, its observers, postgresql8, xx12"
    assert dsn.redact(other) == other


def test_a_long_password_is_hidden_also_within_a_word() -> None:
    assert Dsn({"password": "Zq9x7Lm2"}, environ=NOWHERE).redact("userZq9x7Lm2host") == "user***host"


def test_redact_knows_every_kind_of_secret() -> None:
    """Options that are secret, what PGPASSWORD has, and what the file has now and had when it was last used."""
    dsn = Dsn.parse("host=db1 sslpassword=first", environ={"PGPASSWORD": "second"})
    assert dsn.redact("first second") == "*** ***"
    assert Dsn({"password": ""}, environ=NOWHERE).secrets() == frozenset()


def test_a_rotated_password_is_read_at_once_and_the_old_one_stays_secret(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("before\n")
    dsn = Dsn.parse("host=db1", file, environ=NOWHERE)
    assert dsn.parameters()["password"] == "before"
    file.write_text("after")
    assert dsn.redact("before after") == "*** ***"
    assert dsn.parameters()["password"] == "after"
    file.unlink()
    assert dsn.redact("before after") == "*** ***"


@pytest.mark.parametrize(
    ("content", "password"),
    [(b"p w", "p w"), (b"pw\n", "pw"), (b"pw\r\n", "pw"), (b" pw ", " pw "), ("pä\n".encode(), "pä")],
)
def test_a_password_file_loses_one_newline_and_nothing_else(tmp_path: Path, content: bytes, password: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    assert Dsn.from_service("x", file).parameters() == {"service": "x", "password": password}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"M4RK\nM4RK\n", "holds more than one line"),
        (b"M4RK\0", "holds a NUL character"),
        (b"M4RK\xff", "is not UTF-8 text"),
        (b"M4RK" * 20_000, "cannot be read: too large: 65,536 bytes are allowed"),
    ],
)
def test_a_useless_password_file_is_named_and_not_quoted(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(DsnError) as caught:
        Dsn.from_environment(file, environ=NOWHERE).parameters()
    assert str(caught.value) == f"password file {file} {said}"
    assert "M4RK" not in everything_shown(caught.value)


def test_a_password_file_that_is_none_is_named(tmp_path: Path) -> None:
    """A pipe, which would stop a scrape for ever, is refused without being opened."""
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("pipe", "not a regular file"), (".", "Is a directory"), ("no", "No such file")):
        with pytest.raises(DsnError, match=f"cannot be read: {said}"):
            Dsn.from_environment(tmp_path / name, environ=NOWHERE).parameters()


def test_a_password_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(DsnError, match="given twice"):
        Dsn.parse("postgresql://u:secret@db1/x", tmp_path / "password")


@pytest.mark.parametrize(
    "environ",
    [
        {"PGPORT": "M4RK"},
        {"PGDATABASE": "postgresql://u:M4RK@db1/x"},
        {"PGDATABASE": "host=db1 password=M4RK"},
        {"PGHOST": "postgresql://u:M4RK@db1/x"},
        {"PGSERVICE": "postgresql://u:M4RK@db1/x"},
        {"PGSERVICE": "u:M4RK@db1"},
    ],
)
def test_a_wrong_environment_is_explained_and_not_shown(environ: dict[str, str]) -> None:
    with pytest.raises(DsnError, match="PGHOST, PGPORT, PGDATABASE, PGSERVICE") as caught:
        Dsn.from_environment(environ=environ)
    assert "M4RK" not in everything_shown(caught.value)
    if "PGPORT" not in environ:
        assert "M4RK" not in Dsn.parse("sslmode=require", environ=environ).address


def test_a_dsn_is_immutable_and_never_written_down() -> None:
    @dataclasses.dataclass(frozen=True)
    class Holder:
        dsn: Dsn

    dsn = Dsn.parse("host=db1 password=M4RK", environ=NOWHERE)
    assert copy.deepcopy(dsn) is copy.copy(dsn) is dsn
    assert "M4RK" not in f"{dataclasses.asdict(Holder(dsn))} {Holder(dsn)}"
    assert dsn == Dsn.parse("password=M4RK host=db1", environ=NOWHERE) != Dsn.parse("host=db1", environ=NOWHERE)
    assert len({dsn, Dsn.parse("password=M4RK host=db1", environ=NOWHERE)}) == 1
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(dsn)
    with pytest.raises(AttributeError):
        dsn._options = {}
    with pytest.raises(AttributeError):
        del dsn._options


def test_the_known_options_are_libpqs() -> None:
    """A hint must not send anybody to an option that does not exist; some came with PostgreSQL 18."""
    new = {option for option in OPTIONS if option.startswith(("oauth_", "scram_"))}
    new |= {"sslkeylogfile", "min_protocol_version", "max_protocol_version"}
    for option in OPTIONS:
        if option not in new:
            assert parse_dsn(f"{option}=1") == {option: "1"}
    assert set(OPTIONS) >= SECRET_OPTIONS


def test_another_role_gets_another_password_or_none(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("theirs")
    target = Dsn.parse("postgresql://watcher:ours@a:1,b:2/x?sslmode=require", environ=NOWHERE)
    canary = target.as_user("app", file)
    assert canary.parameters() == target.parameters() | {"user": "app", "password": "theirs"}
    assert target.as_user("app").parameters()["password"] == ""
    assert target.as_user("watcher") is target
    assert Dsn.from_service("x").as_user("app").parameters() == {"service": "x", "user": "app", "password": ""}


def test_another_role_is_not_let_in_by_this_roles_password(
    new_postgres: NewPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real logins: PGPASSWORD and a service's password stay with their role; ~/.pgpass, kept by role, is used."""
    server = new_postgres(16, password_users=("watcher", "app"))
    with psycopg2.connect(server.dsn()) as session, session.cursor() as cursor:
        cursor.execute("create role watcher login password 'same'; create role app login password 'same'")
    session.close()
    services = tmp_path / "services"
    services.write_text(f"[orders]\nhost=127.0.0.1\nport={server.port}\ndbname=postgres\nuser=watcher\npassword=same\n")
    passfile = tmp_path / "pgpass"
    passfile.touch(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGPASSFILE", str(passfile))

    def login(dsn: Dsn) -> str:
        parameters: Any = dsn.parameters(application_name="pgleak")
        connection = psycopg2.connect(**parameters)
        with connection.cursor() as cursor:
            cursor.execute("select current_user || ' ' || current_setting('application_name')")
            (name,) = cursor.fetchone() or ("",)
        connection.close()
        return str(name)

    service = Dsn.from_service("orders")
    assert login(service) == "watcher pgleak"
    with pytest.raises(psycopg2.OperationalError, match="no password supplied"):
        login(service.as_user("app"))

    monkeypatch.setenv("PGPASSWORD", "same")
    watcher = Dsn.parse(f"host=127.0.0.1 port={server.port} dbname=postgres user=watcher")
    assert login(watcher) == "watcher pgleak"
    with pytest.raises(psycopg2.OperationalError, match="no password supplied"):
        login(watcher.as_user("app"))

    passfile.write_text("*:*:*:app:same\n")
    assert login(watcher.as_user("app")) == "app pgleak"
    monkeypatch.setenv("PGPORT", str(server.port))
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGUSER", "watcher")
    monkeypatch.setenv("PGDATABASE", "postgres")
    assert login(Dsn.from_environment()) == "watcher pgleak"
