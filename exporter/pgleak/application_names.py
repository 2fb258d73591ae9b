"""Which names applications send, and what is made of them: the built-in lists.

A name that carries a process id, a UUID or an address makes a new application of every process, and each of
them is far too small to show a leak. The patterns are conservative: a name that is merged wrongly hides which
of two applications leaks, so what may be a year, a port or a version stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One replacement in application names, with the semantics of re.sub."""

    pattern: re.Pattern[str]
    replacement: str


def rewrite(name: str, rewrites: Iterable[Rewrite]) -> str:
    """Return the name after all replacements, in order."""
    for each in rewrites:
        name = each.pattern.sub(each.replacement, name)
    return name


# What a name's changing part is replaced by: visible, so that a reader sees that names were merged.
_ANY = "*"

# Letters and digits on neither side: a match is a whole word of the name.
_START, _END = r"(?<![0-9A-Za-z])", r"(?![0-9A-Za-z])"

# 202401 and 20240115 are months and days, not process ids.
_NOT_A_DATE = r"(?!(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])?(?!\d))"

# The alphabet of Kubernetes' random suffixes, and the part of it that a ReplicaSet's hash can have.
_KUBERNETES, _REPLICA_SET = "[bcdfghjklmnpqrstvwxz2456789]", "[bcdf456789]"

_IPV4 = r"\d{1,3}(?:\.\d{1,3}){3}"

_DEFAULT_REWRITES = (
    # PgBouncer's application_name_add_host: "app - 10.0.0.1:5432", " - [::1]:5432", " - unix(12@host):6432".
    (rf"(?<=.) - (?:{_IPV4}|\[[0-9A-Fa-f:.]+\]|unix(?:\([^()]*\))?):\d{{1,5}}$", ""),
    # The same, cut off by PostgreSQL's limit of 63 bytes.
    (r"^(?=.{63}$)(.+) - (?:\d{1,3}\.[\d.]*:?\d*|\[[0-9A-Fa-f:.]*\]?:?\d*|unix\([^()]*\)?:?\d*)$", r"\1"),
    (rf"(?i){_START}[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}{_END}", _ANY),  # UUID
    # Kubernetes: the pods of a Deployment (orders-7d9f8b6c5-x2x9z) and of a CronJob (nightly-28512345-k8s9x).
    (rf"-(?:{_REPLICA_SET}{{6,10}}|\d{{8,10}})-{_KUBERNETES}{{5}}{_END}", f"-{_ANY}"),
    # Hashes and container ids: 8 or more hexadecimal digits of both kinds, but no word and year (cafe2024).
    (rf"(?i){_START}(?=[a-f]*[0-9])(?=[0-9]*[a-f])(?![a-f]{{4,}}\d{{1,4}}{_END})[0-9a-f]{{8,}}{_END}", _ANY),
    (rf"{_START}{_NOT_A_DATE}\d{{8,}}{_END}", _ANY),  # time stamps and counters
    # Numbers that are said to be processes: worker-1234, ForkPoolWorker-3, "cluster worker 0: 1234", pid=77.
    (
        (
            r"(?i)((?:worker|process|thread|child)[-_.:# ]|(?<![a-z])(?:pid|proc)[-_.:#= ]?)"
            r"\d+(?:: \d+)?(?!\.?\w)"
        ),
        rf"\1{_ANY}",
    ),
    (r"\[\d+\]", f"[{_ANY}]"),  # app[1234]
    (r"\[\d+ of \d+ busy\]", f"[{_ANY}]"),  # Sidekiq's title
    # Trailing numbers as long as a process id can be: app-54321, name:12345. Four digits may be a year.
    (rf"(?<=[0-9A-Za-z\])*])(?:([-_:/@#]){_NOT_A_DATE}\d{{5,}})+$", rf"\1{_ANY}"),
)

DEFAULT_REWRITES = tuple(Rewrite(re.compile(pattern), to) for pattern, to in _DEFAULT_REWRITES)

# Programs that people open in the morning and leave idle for hours: judged, they give a third of false alarms.
# pg_dump is here because with --jobs its leader stands idle in a transaction for as long as the dump runs.
# pg_basebackup and replication are not: they are walsenders, which do not count as clients.
_DEFAULT_IGNORED = (
    r"psql|pgcli|usql",
    r"pg_dump|pg_dumpall|pg_restore",
    r"pgAdmin.*",  # pgAdmin 4 - DB:postgres, pgAdmin 4 - CONN:1234567
    r"(DBeaver|CloudBeaver).*",  # DBeaver 24.1.0 - Main
    r"(DataGrip|IntelliJ|PyCharm|GoLand|WebStorm|PhpStorm|RubyMine|CLion|DataSpell|Rider)( .*)?",
    r"(TablePlus|Postico|HeidiSQL|Navicat|DbVisualizer|DbGate|SQLTools|OmniDB)( .*)?",
    r"(Beekeeper|Azure Data|Aqua Data|Valentina) ?Studio.*|azdata.*|vscode-pgsql.*",
    r"(SQL Workbench|SQuirreL|EMS SQL Manager|Toad)([ /].*)?",
    r"(phpPgAdmin|Adminer)( .*)?",
    r"Tableau.*|Metabase.*",
    r"Mashup Engine.*|(Microsoft )?Power ?(BI|Query).*|PBIDesktop.*",
    r"Microsoft.*\bExcel.*|EXCEL(\.EXE)?|MSACCESS(\.EXE)?|Microsoft.*\bAccess.*|Microsoft Office.*",
)

DEFAULT_IGNORED = tuple(re.compile(pattern, re.IGNORECASE) for pattern in _DEFAULT_IGNORED)
