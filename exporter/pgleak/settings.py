"""The ways in to the settings: a YAML file, the command line, the environment. All problems come at once."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pgleak import variables
from pgleak.application_names import DEFAULT_IGNORED, DEFAULT_REWRITES, Rewrite
from pgleak.dsn import Dsn, DsnError
from pgleak.metrics import GROUPING
from pgleak.problem import Problem
from pgleak.secret import looks_like_credentials
from pgleak.settings_model import DEFAULT_GROUP_BY, Canary, Caps, Listen, Settings, Target, Thresholds, Timeouts
from pgleak.settings_patterns import Patterns
from pgleak.settings_schema import Section, SettingsError, format_duration, show, show_path
from pgleak.yamlfile import YamlError, read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "DEFAULT_IGNORED",
    "DEFAULT_REWRITES",
    "Canary",
    "Caps",
    "Listen",
    "Problem",
    "Rewrite",
    "Settings",
    "SettingsError",
    "Target",
    "Thresholds",
    "Timeouts",
    "from_dict",
    "from_yaml",
    "single_target",
]

TOP_KEYS = (
    *("targets", "listen", "web_config_file", "connections_page", "pool_dir", "group_by"),
    *("rewrite_application_names", "ignored_applications", "ignored_users", "reporting_applications"),
    *("caps", "timeouts", "thresholds"),
)
TARGET_KEYS = ("name", "dsn", "service", "password_file", "canary")
CANARY_KEYS = ("dsn", "user", "password_file", "interval")
_LEVELS = {  # without the canary's: a `user` of a target is meant for that, and does not belong there
    "at the top of the file": TOP_KEYS,
    "under targets": TARGET_KEYS,
    **{
        f"under {kind.__name__.lower()}": tuple(each.name for each in fields(kind))
        for kind in (Caps, Timeouts, Thresholds)
    },
}

LONGEST_NAME = 100
T = TypeVar("T")


def from_yaml(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read a settings file. Raises SettingsError with every problem in it; relative paths start at the file."""
    try:
        document = read(path)
    except YamlError as error:
        raise SettingsError(str(path), [Problem("", str(error))]) from None
    twice = [
        Problem(f"{path}:{each.line}:{each.column}", f"the key {where} stands twice, first on line {each.first_line}")
        for each in document.duplicates
        for where in [show_path((*each.above, each.key))]
    ]
    return _read(document.data, path.parent, str(path), environ, twice)


def from_dict(
    data: object, base: Path = Path(), source: str = "settings", environ: Mapping[str, str] = os.environ
) -> Settings:
    """Read what stands in a settings file. Raises SettingsError; relative paths start at `base`."""
    return _read(data, base, source, environ, [])


def single_target(
    dsn: str | None = None,
    *,
    name: str | None = None,
    password_file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Make settings for one server from `--dsn`, else PGLEAK_DSN, else libpq's own environment.

    Its name is `host:port`, or the service's, where none is given. Raises SettingsError.
    """
    text = dsn if dsn is not None else environ.get(variables.DSN) or None
    source = "--dsn" if dsn is not None else variables.DSN if text else "environment"
    problems: list[Problem] = []
    way = _guarded(problems, source, lambda: _dsn(text, None, password_file, environ))
    if way and password_file:
        _guarded(problems, "--password-file", way.parameters)
    if name is None and way and (wrong := _problem_with_name(way.server)):
        problems.append(Problem("--server", f"is needed, for the host would make a bad name: {wrong}"))
    if name is not None and (wrong := _problem_with_name(name)):
        problems.append(Problem("--server", wrong, show(name)))
    if problems or not way:
        raise SettingsError("command line", problems)
    return Settings(targets=(Target(name or way.server, way),))


def _read(data: object, base: Path, source: str, environ: Mapping[str, str], problems: list[Problem]) -> Settings:
    top = Section({} if data is None else data, "", TOP_KEYS, problems, _LEVELS)
    patterns = Patterns(top, problems)
    settings = Settings(
        targets=_targets(top, base, environ, problems),
        listen=_listen(top),
        web_config_file=_web_config_file(top, base),
        connections_page=_connections_page(top),
        pool_dir=top.file("pool_dir", base),
        group_by=_group_by(top),
        application_names=patterns.rewrites("rewrite_application_names"),
        ignored_applications=patterns.whole_names("ignored_applications", DEFAULT_IGNORED),
        ignored_users=patterns.whole_names("ignored_users"),
        reporting_applications=patterns.whole_names("reporting_applications"),
        caps=top.numbers("caps", Caps),
        timeouts=top.numbers("timeouts", Timeouts),
        thresholds=top.numbers("thresholds", Thresholds),
    )
    if settings.timeouts.scrape <= settings.timeouts.scrape_offset:
        times = settings.timeouts
        message = "must be longer than scrape_offset"
        shown = f"{format_duration(times.scrape)}, and scrape_offset {format_duration(times.scrape_offset)}"
        problems.append(Problem("timeouts.scrape", message, shown))
    patterns.note_slow()
    if problems:
        raise SettingsError(source, problems)
    return settings


def _targets(top: Section, base: Path, environ: Mapping[str, str], problems: list[Problem]) -> tuple[Target, ...]:
    items = list(top.items("targets"))
    if not items and isinstance(top.value("targets", []), list) and "pool_dir" not in top:
        top.note("targets", "must be a list of at least one target, each with a name")
    targets = [
        _target(Section(item, path, TARGET_KEYS, problems, _LEVELS), base, environ, problems, alone=len(items) == 1)
        for path, item in items
    ]
    first: dict[str, int] = {}
    for index, target in enumerate(targets):
        earlier = first.setdefault(target.name, index)
        if target.name and earlier != index:
            message = f"the name of targets[{earlier}] again; each target needs its own"
            problems.append(Problem(f"targets[{index}].name", message, show(target.name)))
    return tuple(targets)


def _target(
    section: Section, base: Path, environ: Mapping[str, str], problems: list[Problem], *, alone: bool
) -> Target:
    name = section.text("name")
    if name and (wrong := _problem_with_name(name)):
        section.note("name", wrong)
    elif "name" not in section and section.is_mapping:
        section.note("name", "is missing: it is the label `server` of every metric of this target")
    if "dsn" in section and "service" in section:
        section.note("service", "cannot stand beside dsn; in a dsn write service=NAME", hidden=True)
    if "dsn" not in section and "service" not in section and section.is_mapping and not alone:
        section.note("dsn", "is missing: give dsn or service, as only a single target may leave both to PGHOST etc.")
    password_file = _password_file(section, base, problems)
    service = _word(section, "service")
    text = _dsn_text(section)
    dsn = _guarded(problems, section.where("dsn"), lambda: _dsn(text or None, service, password_file, environ))
    dsn = dsn or Dsn({}, environ=environ)
    return Target(name, dsn, _canary(section, dsn, base, environ, problems))


def _canary(
    target: Section, dsn: Dsn, base: Path, environ: Mapping[str, str], problems: list[Problem]
) -> Canary | None:
    if "canary" not in target:
        return None
    section = target.section("canary", CANARY_KEYS)
    interval = section.seconds("interval", **_bounds_of_interval())
    password_file = _password_file(section, base, problems)
    user = _word(section, "user")
    text = _dsn_text(section)
    if section.is_mapping and ("dsn" in section) == ("user" in section):
        section.note("dsn", "give either dsn, or user for the target's server and database", hidden=True)
    own = _guarded(problems, section.where("dsn"), lambda: Dsn.parse(text, password_file, environ)) if text else None
    return Canary(own or dsn.as_user(user, password_file), interval)


def _bounds_of_interval() -> dict[str, float]:
    interval = next(each for each in fields(Canary) if each.name == "interval")
    return {"default": interval.default, **interval.metadata}


def _dsn(text: str | None, service: str | None, password_file: Path | None, environ: Mapping[str, str]) -> Dsn:
    if text is not None:
        return Dsn.parse(text, password_file, environ)
    if service:
        return Dsn.from_service(service, password_file, environ)
    return Dsn.from_environment(password_file, environ)


def _dsn_text(section: Section) -> str:
    text = section.text("dsn", hidden=True)
    if re.search(r"\$\{\w+\}", text):
        # Sent as it stands it would be refused as a wrong password, which says nothing about the cause.
        section.note("dsn", "variables like ${NAME} are not expanded; use password_file, or %24 for $", hidden=True)
    return text


def _password_file(section: Section, base: Path, problems: list[Problem]) -> Path | None:
    path = section.file("password_file", base)
    if path:
        _guarded(problems, section.where("password_file"), Dsn({}, path).parameters)
    return path


def _word(section: Section, key: str) -> str:
    text = section.text(key)
    if looks_like_credentials(text):
        section.note(key, "must be a name, not a connection string", hidden=True)
        return ""
    return text


def _problem_with_name(name: str) -> str:
    if looks_like_credentials(name):
        return "must be a name, not a connection string: everybody who reads the metrics sees it"
    if not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
        return f"must be 1 to {LONGEST_NAME} printable characters"
    return ""


def _guarded(problems: list[Problem], path: str, make: Callable[[], T]) -> T | None:
    try:
        return make()
    except DsnError as error:
        problems.append(Problem(path, str(error)))
    return None


def _listen(top: Section) -> Listen:
    if "listen" not in top:
        return Listen()
    value = top.value("listen")
    try:
        return Listen.parse(value if isinstance(value, str) else "")
    except ValueError as error:
        top.note("listen", str(error))
    return Listen()


def _web_config_file(top: Section, base: Path) -> Path | None:
    path = top.file("web_config_file", base)
    if path and not os.access(path, os.R_OK):
        top.note("web_config_file", f"{path} is missing or cannot be read", hidden=True)
    return path


def _connections_page(top: Section) -> bool:
    value = top.value("connections_page", True)  # noqa: FBT003  the default
    if not isinstance(value, bool):
        top.note("connections_page", "must be true or false")
    return value is True


def _group_by(top: Section) -> tuple[str, ...]:
    chosen = []
    for path, item in top.items("group_by"):
        if item not in GROUPING or item in chosen:
            top.note_item(path, item, f"must be one of {', '.join(GROUPING)}, each at most once")
        chosen.append(item)
    if "group_by" not in top:
        return DEFAULT_GROUP_BY
    if not chosen and isinstance(top.value("group_by", []), list):
        top.note("group_by", f"must name at least one of {', '.join(GROUPING)}")
    return tuple(name for name in GROUPING if name in chosen)
