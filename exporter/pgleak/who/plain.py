"""A report and its diagnosis as JSON-ready data, for `pgleak who --json` and for `/connections`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pgleak.who.sight import sight

if TYPE_CHECKING:
    from pgleak.pool.snapshot import Frame
    from pgleak.who.connection import Connection
    from pgleak.who.diagnosis import Diagnosis, Findings, Outlook
    from pgleak.who.report import Application, Report


def plain(report: Report, findings: Findings) -> dict[str, Any]:
    """Everything; ages and durations in seconds, `at` as Unix time. What a side does not know is null."""
    watch = report.watch
    return {
        "at": report.at,
        "servers": [
            {
                "server": each.name,
                "address": each.address,
                "up": not each.reason,
                "reason": each.reason or None,
                "used": each.used,
                "usable": each.usable,
                **_outlook(findings.outlook(each.name)),
                "limits": [
                    {
                        "kind": limit.kind,
                        "name": limit.name,
                        "used": limit.used,
                        "limit": limit.most,
                        **_outlook(findings.outlook(each.name, limit.label)),
                    }
                    for limit in each.limits
                ],
            }
            for each in report.servers
        ],
        "processes": None
        if watch is None
        else {
            "reporting": watch.processes,
            "stale": watch.stale,
            "skipped": dict(watch.skipped),
            "problem": watch.problem or None,
        },
        "cannot_tell": sight(report).is_blind,
        "unseen": list(sight(report).unseen),
        "diagnoses": [_diagnosis(each) for each in findings.diagnoses],
        "applications": [_application(each) for each in report.applications],
        "unmatched": [
            {"application_name": name, "address": address, "reason": reason, "connections": count}
            for (name, address, reason), count in report.unmatched.items()
        ],
    }


def _outlook(outlook: Outlook | None) -> dict[str, float | None]:
    if outlook is None:
        return {"leaked_per_hour": None, "full_in": None}
    return {"leaked_per_hour": outlook.per_hour, "full_in": outlook.seconds}


def _diagnosis(each: Diagnosis) -> dict[str, Any]:
    return {
        "server": each.server,
        "application_name": each.application,
        "usename": each.usename or None,
        "cause": each.cause.key,
        "what": each.cause.what,
        "change": each.cause.change,
        "sure": each.cause.sure,
        "leak": each.is_leak,
        "in_use": each.is_in_use,
        "connections": each.connections,
        "ended_by_server": each.ended,
        "since": each.since,
        "per_hour": each.per_hour,
        "returned_by_gc": each.returned,
        "site": each.site or None,
        "stack": [_frame(frame) for frame in each.frames],
        "callers": [{**_frame(frame), "connections": count} for frame, count in each.callers],
    }


def _application(each: Application) -> dict[str, Any]:
    return {
        "server": each.server,
        "usename": each.usename or None,
        "application_name": each.name,
        "suspects": len(each.suspects) + each.piled,
        "ended_by_server": len(each.ended),
        "processes": each.processes,
        "pool_connections_max": each.connections_max if math.isfinite(each.connections_max) else None,
        "waiting": each.waiting,
        "timeouts": each.timeouts,
        "returned_by_gc": dict(each.returned),
        "connections": [_connection(connection) for connection in each.connections],
    }


def _connection(each: Connection) -> dict[str, Any]:
    held = each.checkout
    return {
        "pid": each.pid,
        "datname": each.datname or None,
        "client_addr": each.client_addr or None,
        "state": each.state or None,
        "age": each.age,
        "unused": each.unused,
        "transaction": each.transaction,
        "suspect": each.is_suspect,
        "in_use": each.is_used,
        "evidence": each.evidence or None,
        "holder": each.holder,
        "doubt": each.doubt or None,
        "process": each.process.pid if each.process is not None else None,
        "host": each.process.host if each.process is not None else None,
        "pool": each.pool or None,
        "cause": each.cause,
        "limit": each.limit if each.cause else None,
        "held": held.age if held is not None else None,
        "site": held.site if held is not None else None,
        "stack": [_frame(frame) for frame in each.frames],
        "owner": {"kind": held.owner.kind, "name": held.owner.name, "state": held.owner.state} if held else None,
        "standing": [_frame(frame) for frame in held.standing] if held else [],
        "context": held.context or None if held else None,
        "end": each.end or None,
    }


def _frame(frame: Frame) -> dict[str, Any]:
    return {"module": frame.module, "function": frame.function, "file": frame.file, "line": frame.line}
