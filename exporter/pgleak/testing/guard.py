"""The pytest hooks that do the work, registered only in runs that asked for them.

What a test took is judged when its own fixtures are gone. A fixture of a wider scope may keep what it took while it was
set up, and is judged when it is over.
"""

from __future__ import annotations

import gc
import time
import warnings
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import Session

from pgleak import pytest_plugin
from pgleak.pool import api, ledger
from pgleak.testing import census
from pgleak.testing.alarm import Alarm
from pgleak.testing.keepers import keeper_of
from pgleak.testing.message import describe
from pgleak.testing.scopes import Claim, Moment, claim_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager

    from pgleak.pool.connection import Connection, Holding
    from pgleak.testing.leftovers import Leftover

_GRACE = 1.0  # seconds that a thread at work gets to give back what it holds
_SECTION = "pgleak: left behind at teardown"  # pytest shows this with a failure because of the last word


@dataclass(slots=True)
class _Trial:
    """One run of one test."""

    start: Moment
    failed: bool = False
    section: str = ""
    fixture_failed: bool = False  # one of a wider scope, for which the marks of this test do not speak


_TRIAL = pytest.StashKey[_Trial]()


class Guard:
    """Judges each test, and each fixture of a wider scope."""

    def __init__(self) -> None:
        self._claims: list[tuple[object, Claim]] = []  # with the definition of the fixture
        self._item: pytest.Item | None = None
        self._sessions = census.Sessions()
        self._collected = census.Collected()
        self._began: Callable[..., None] | None = None
        self._alarm: Alarm | None = None
        self._told: list[tuple[frozenset[int], str]] = []  # which checkouts, and what was said of them

    def start(self) -> None:
        """Watch every engine from now on."""
        api.observe()
        self._began = self._sessions.after_begin
        event.listen(Session, "after_begin", self._began)
        ledger.witnesses.append(self._collected)
        with suppress(OSError):  # no standard error: nowhere to speak
            self._alarm = Alarm()

    def stop(self) -> None:
        """Leave SQLAlchemy as it was."""
        if self._began is not None:
            event.remove(Session, "after_begin", self._began)
            self._began = None
            ledger.witnesses.remove(self._collected)
            api.uninstrument()
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        if not api.is_instrumented():  # the test before has called uninstrument()
            api.observe()
        self._item = item
        item.stash[_TRIAL] = _Trial(Moment.now())
        with self._watching(self._still_out()):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        with self._watching(self._still_out()):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
        if fixturedef.scope == "function":
            return (yield)
        first = Moment.now()
        try:
            return (yield)
        finally:
            is_judged = self._item is not None and pytest_plugin.is_guarded(self._item)
            claim = Claim(fixturedef.argname, fixturedef.scope, first, Moment.now(), is_judged)
            self._claims.append((fixturedef, claim))

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        for definition, claim in self._claims:
            if definition is fixturedef:
                claim.is_over = True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        report = yield
        trial = item.stash.get(_TRIAL, None)
        if trial is not None:
            if call.when == "call":
                trial.failed = report.failed
            elif call.when == "teardown":
                if trial.section:
                    report.sections.append((_SECTION, trial.section))
                if trial.fixture_failed and report.skipped:  # pytest.mark.xfail expects the teardown to fail, too
                    report.outcome = "failed"
                    del report.wasxfail
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        trial = item.stash.get(_TRIAL, None)
        try:
            with self._watching(self._still_out() + self._in_use(item)):
                result = yield
        except Exception:
            if trial is not None:
                trial.section = "\n\n".join(text for _, text in self._judge(item, trial))
            raise
        if trial is not None:
            failures = []
            for is_fixture, text in self._judge(item, trial):
                if is_fixture or not trial.failed:
                    failures.append(text)
                    trial.fixture_failed = trial.fixture_failed or is_fixture
                else:
                    trial.section = f"The test had failed already, and this may come of it.\n\n{text}"
            if failures:
                pytest.fail("\n\n".join(failures), pytrace=False)
        return result

    def _watching(self, texts: list[str]) -> AbstractContextManager[None]:
        return self._alarm.watching(texts) if self._alarm is not None else nullcontext()

    def _still_out(self) -> list[str]:
        """What was said of earlier tests, as far as they still hold it."""
        if self._told:
            out = {holding[0] for _, _, holding in census.checked_out()}
            self._told = [(numbers, text) for numbers, text in self._told if numbers & out]
        return [text for _, text in self._told]

    def _in_use(self, item: pytest.Item) -> list[str]:
        """What is held while fixtures are about to go: in order so far, and perhaps in their way."""
        told = {number for numbers, _ in self._told for number in numbers}
        held = (
            [each for each in census.checked_out() if each[2][0] not in told] if pytest_plugin.is_guarded(item) else []
        )
        leftovers = [census.leftover_of(*each, self._sessions) for each in held]
        return [describe(leftovers, item.config.rootpath)] if leftovers else []

    def _judge(self, item: pytest.Item, trial: _Trial) -> list[tuple[bool, str]]:
        """Messages, each with whether a fixture of a wider scope is to blame and not the test."""
        claims = [claim for _, claim in self._claims]
        over = [claim for claim in claims if claim.is_over]

        def to_blame(number: int) -> Claim | _Trial | None:
            claim = claim_of(claims, number, self._sessions.key(number))
            if claim is None:
                return trial if number > trial.start.number and pytest_plugin.is_guarded(item) else None
            return claim if claim.is_over and claim.is_judged else None

        patterns = pytest_plugin.allowed(item)

        def is_wrong(leftover: Leftover) -> bool:
            return to_blame(leftover.number) is not None and not leftover.is_allowed(patterns)

        blamed: dict[int, tuple[Claim | _Trial, list[Leftover]]] = {}
        for leftover in self._left(trial, to_blame, is_wrong):
            culprit = to_blame(leftover.number)
            if culprit is not None:
                blamed.setdefault(id(culprit), (culprit, []))[1].append(leftover)
        self._claims = [(definition, claim) for definition, claim in self._claims if claim not in over]
        self._sessions.keep_only({holding[0] for _, _, holding in census.checked_out()})
        judged = []
        for culprit, leftovers in blamed.values():
            text = describe(leftovers, item.config.rootpath, fixture=_fixture(culprit))
            judged.append((isinstance(culprit, Claim), text))
            self._told.append((frozenset(each.number for each in leftovers if each.kind != "engine"), text))
        return judged

    def _left(
        self, trial: _Trial, to_blame: Callable[[int], object], is_wrong: Callable[[Leftover], bool]
    ) -> Iterator[Leftover]:
        held = (census.leftover_of(*each, self._sessions) for each in _settled(to_blame))
        checkouts = {each.number: each for each in held if is_wrong(each)}
        engines = [each for each in census.open_engines() if not each.is_of_an_import and is_wrong(each)]
        if checkouts or engines:
            _collect_garbage()
        still_out = {holding[0]: holding for _, _, holding in census.checked_out()}
        keepers: dict[object, tuple[str, ...]] = {}  # looked for once per place in the code: it takes its time
        for number, leftover in checkouts.items():
            holding = still_out.get(number)
            if holding is None:
                yield replace(leftover, collected=True)
                continue
            if leftover.frames not in keepers:
                is_clear = trial.failed or census.is_at_work(holding)
                keepers[leftover.frames] = () if is_clear else keeper_of(holding[6]())
            yield replace(leftover, keeper=keepers[leftover.frames])
        yield from engines
        known = {*checkouts, *(engine.number for engine in engines)}
        for leftover in self._collected.take():
            if leftover.number not in known and not leftover.is_of_an_import and is_wrong(leftover):
                yield leftover


def _settled(to_blame: Callable[[int], object]) -> list[tuple[str, Connection, Holding]]:
    """The checkouts that somebody answers for, when the threads at work have had their time to give theirs back."""
    deadline = time.monotonic() + _GRACE
    while True:
        now = time.monotonic()
        held = [
            each
            for each in census.checked_out()
            if not census.is_expected(each[2], now - each[2][1]) and to_blame(each[2][0]) is not None
        ]
        if now > deadline or not any(census.is_at_work(holding) for _, _, holding in held):
            return held
        time.sleep(0.01)


def _collect_garbage() -> None:
    with warnings.catch_warnings():
        # SQLAlchemy says that the collector had to give an async connection back. The message will say so with the line.
        warnings.simplefilter("ignore", SAWarning)
        gc.collect()


def _fixture(culprit: Claim | _Trial) -> str:
    return f"fixture {culprit.fixture!r} (scope {culprit.scope})" if isinstance(culprit, Claim) else ""
