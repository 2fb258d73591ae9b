"""Where a server is and how to log in, holding the password without ever showing it."""

from __future__ import annotations

import os
import pwd
import re
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote, quote_plus

from pgleak import libpq, smallfile
from pgleak.libpq import DsnError
from pgleak.secret import SECRET_OPTIONS, looks_like_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Dsn", "DsnError"]

_HIDDEN = "***"
_LONG = 8  # characters from which on a secret that is no plain word is replaced even within a word
_REMEMBERED = 8  # passwords read from the file: a message may still speak of the one before a rotation
_LARGEST_PASSWORD_FILE = 64 * 1024
_VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "service": "PGSERVICE",
}
_OF_THE_ROLE = SECRET_OPTIONS - {"sslpassword"}  # which opens the client's key, and the key stays


class Dsn:
    """One way into one server: libpq options and, if wanted, a file that holds the password.

    `repr`, `str` and `address` never hold a secret. It is immutable, is its own copy, and cannot be pickled.
    """

    __slots__ = ("_environ", "_handed_out", "_options", "_password_file")

    _environ: Mapping[str, str]
    _handed_out: list[str]
    _options: Mapping[str, str]
    _password_file: Path | None

    def __init__(
        self,
        options: Mapping[str, str],
        password_file: Path | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        for name, value in (
            ("_options", dict(options)),
            ("_password_file", password_file),
            ("_environ", environ),
            ("_handed_out", []),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def parse(cls, text: str, password_file: Path | None = None, environ: Mapping[str, str] = os.environ) -> Dsn:
        """From a libpq URI or key=value string. Raises DsnError, which never quotes the text."""
        options = libpq.parse(text)
        if password_file and "password" in options:
            raise DsnError("the password is given twice: here and in password_file; keep the file")
        return cls(options, password_file, environ)

    @classmethod
    def from_service(cls, name: str, password_file: Path | None = None, environ: Mapping[str, str] = os.environ) -> Dsn:
        """From a section of pg_service.conf, which libpq reads at connect: its password is unknown here."""
        return cls({"service": name}, password_file, environ)

    @classmethod
    def from_environment(cls, password_file: Path | None = None, environ: Mapping[str, str] = os.environ) -> Dsn:
        """From PGHOST, PGSERVICE, PGPASSWORD and so on, as psql does. Raises DsnError for a wrong one."""
        dsn = cls({}, password_file, environ)
        named = {option: dsn._effective(option, variable) for option, variable in _VARIABLES.items()}
        try:
            libpq.check(named)
        except DsnError as error:
            raise DsnError(f"in libpq's environment (PGHOST, PGPORT, PGDATABASE, PGSERVICE): {error}") from None
        return dsn

    def as_user(self, user: str, password_file: Path | None = None) -> Dsn:
        """Return the way to the same database as another role, which never gets this role's password.

        Without a password file an explicitly empty password goes to libpq, which would else take PGPASSWORD or
        the one of the service: those are this role's. It still looks into ~/.pgpass, which is kept by role.
        """
        if user == self._user() and password_file is None:
            return self
        options = {name: value for name, value in self._options.items() if name not in _OF_THE_ROLE}
        return Dsn({**options, "user": user, "password": ""}, password_file, self._environ)

    def parameters(self, **overrides: str | int) -> dict[str, str]:
        """Return keyword arguments for psycopg2.connect, secrets included: never show them.

        The password file is read anew on each call, so that a rotated password is used. Raises DsnError,
        naming the path, when it cannot be read. Empty for libpq's own environment without overrides.
        """
        parameters = dict(self._options)
        if self._password_file:
            password = _read_password(self._password_file)
            if password not in self._handed_out:
                self._handed_out.append(password)
                del self._handed_out[:-_REMEMBERED]
            parameters["password"] = password
        return parameters | {name: str(value) for name, value in overrides.items()}

    @property
    def address(self) -> str:
        """`host:port/dbname`, `socket-dir:port/dbname` or `service=NAME`: safe to show.

        Without any host it is `local socket, port 5432, database NAME`.
        """
        if service := self._service():
            return f"service={_shown(service)}"
        database = self._effective("dbname", "PGDATABASE") or self._user() or _system_user()
        if not (self._effective("host", "PGHOST") or self._effective("hostaddr", "PGHOSTADDR")):
            place = f"local socket, port {_shown(self._effective('port', 'PGPORT') or '5432')}"
            return f"{place}, database {_shown(database)}" if database else place
        return f"{self._hosts()}/{_shown(database)}" if database else self._hosts()

    @property
    def has_password(self) -> bool:
        """Whether the text that this was made from holds a secret."""
        return any(self._options.get(option) for option in SECRET_OPTIONS)

    @property
    def password_file(self) -> Path | None:
        """The file that the password is read from, if any."""
        return self._password_file

    @property
    def server(self) -> str:
        """The address without the database, as a default for the label `server`."""
        service = self._service()
        return _shown(service) if service else self._hosts()

    def secrets(self) -> frozenset[str]:
        """Return each secret that a message may hold: raw, URL-encoded, and escaped as libpq wants it."""
        return frozenset(form for secret in self._raw_secrets() if secret for form in _forms(secret))

    def redact(self, text: str) -> str:
        """Return the text with each secret replaced by `***`.

        One that is short or a plain word only where it stands by itself, as whoever quotes it sets it off by a quote, a
        space, a colon or the like: the password `a` must not take every a out of the message.
        """
        longest_first = sorted(self.secrets(), key=len, reverse=True)
        # One pass, so that a secret which occurs in the replacement does no harm.
        return re.sub("|".join(map(_pattern, longest_first)), _HIDDEN, text) if longest_first else text

    def __repr__(self) -> str:
        return f"<Dsn {self.address}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dsn) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Dsn is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"Dsn is immutable: {name} cannot be deleted")

    def __copy__(self) -> Dsn:
        return self

    def __deepcopy__(self, memo: object) -> Dsn:
        return self  # dataclasses.asdict copies deeply

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Dsn is not pickled: the password would be readable in the result")

    def _identity(self) -> tuple[object, ...]:
        return (tuple(sorted(self._options.items())), self._password_file)

    def _user(self) -> str:
        return self._effective("user", "PGUSER")

    def _effective(self, option: str, variable: str) -> str:
        return self._options.get(option) or self._environ.get(variable, "")

    def _service(self) -> str:
        """Return the service that names the server: PGSERVICE does not, where the options have a host."""
        if "service" in self._options:
            return self._options["service"]
        return "" if self._options.keys() & {"host", "hostaddr"} else self._environ.get("PGSERVICE", "")

    def _hosts(self) -> str:
        hosts = self._effective("host", "PGHOST") or self._effective("hostaddr", "PGHOSTADDR")
        names = [_shown(host.strip()) or "localhost" for host in hosts.split(",")]
        ports = [port.strip() or "5432" for port in self._effective("port", "PGPORT").split(",")]
        if len(ports) < len(names):
            ports = ports[:1] * len(names)
        return ",".join(
            f"[{name}]:{_shown(port)}" if ":" in name else f"{name}:{_shown(port)}"
            for name, port in zip(names, ports, strict=False)
        )

    def _raw_secrets(self) -> Iterator[str]:
        yield from (self._options.get(option, "") for option in SECRET_OPTIONS)
        yield self._environ.get("PGPASSWORD", "")
        yield from tuple(self._handed_out)
        if self._password_file:
            try:
                password = _read_password(self._password_file)
            except DsnError:
                return
            yield password


def _shown(part: str) -> str:
    """Hide a part of the address that looks as if someone had put a whole connection string there."""
    return "?" if looks_like_credentials(part) else part


def _system_user() -> str:
    """Return what libpq takes for the user by default; in a container the number may have no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _pattern(secret: str) -> str:
    pattern = re.escape(secret)
    if len(secret) >= _LONG and not secret.isalpha():
        return pattern
    start, end = (r"\b" if re.match(r"\w", edge) else "" for edge in (secret[0], secret[-1]))
    return f"{start}{pattern}{end}"


def _forms(secret: str) -> set[str]:
    encoded = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    lower = {re.sub("%[0-9A-F]{2}", lambda escape: escape[0].lower(), form) for form in encoded}
    return {secret, secret.replace("\\", "\\\\").replace("'", "\\'"), *encoded, *lower}


def _read_password(path: Path) -> str:
    problem = ""
    password = ""
    # Raised outside of the handler: a decoding error carries the bytes, which would hang on as the context.
    try:
        password = smallfile.content(path, _LARGEST_PASSWORD_FILE).decode()
    except OSError as error:
        problem = f"cannot be read: {error.strerror or type(error).__name__}"
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    password = password[:-1].removesuffix("\r") if password.endswith("\n") else password
    if not problem and not password:
        problem = "is empty"
    if not problem and ("\n" in password or "\0" in password):
        problem = "holds more than one line" if "\n" in password else "holds a NUL character"
    if problem:
        raise DsnError(f"password file {path} {problem}")
    return password
