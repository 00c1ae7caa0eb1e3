"""Triggers over a clock that the test moves: due, missed, deferred, paused, and every verdict a row."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from orchestrator import triggers
from orchestrator.errors import BadInput
from orchestrator.flow import decision, rollback
from orchestrator.flow.each import each
from orchestrator.service.commands import batches
from orchestrator.settings import AmountTrigger, CronTrigger, IntervalTrigger, TriggerSettings
from storage.errors import LeaseLost
from storage.tables import Firing
from tests.flow.harness import NEW, Daemon

HOUR = {"kind": "interval", "every_seconds": 3600}


def firings(daemon: Daemon) -> list[tuple[str, str]]:
    with daemon.app.database.read() as session:
        return [(one.verdict, one.reason) for one in session.scalars(select(Firing).order_by(Firing.due_at))]


def test_an_interval_fires_when_there_is_new_data_and_says_so_when_not(daemon: Daemon) -> None:
    daemon.add_stream(triggers=[HOUR])
    daemon.clock.offset += timedelta(hours=1)
    daemon.settle()
    assert firings(daemon) == [("declined", "no new data is pending")]
    daemon.ingest(NEW)
    daemon.clock.offset += timedelta(hours=1)
    daemon.settle()
    assert [verdict for verdict, _ in firings(daemon)] == ["declined", "fired"]
    assert daemon.versions() == {1: "retired", 2: "live"}


def test_one_that_fails_keeps_no_other_from_its_turn() -> None:
    taken: list[int] = []

    def work(one: int) -> bool:
        taken.append(one)
        if one in (1, 3):
            raise ValueError(f"{one} is broken")
        return True

    with pytest.raises(ValueError, match="1 is broken"):
        each(work, [1, 2, 3, 4])
    assert taken == [1, 2, 3, 4]
    assert each(work, [2, 4])
    assert not each(work, [])
    with pytest.raises(LeaseLost):
        each(leaseless, [1, 2])


def leaseless(one: int) -> bool:
    if one == 2:
        raise AssertionError("nobody may go on")
    raise LeaseLost("another daemon leads")


def test_missed_firings_run_once_and_the_others_are_recorded_as_skipped(daemon: Daemon) -> None:
    daemon.add_stream(triggers=[HOUR])
    daemon.ingest(NEW)
    daemon.clock.offset += timedelta(hours=30)
    daemon.settle()
    assert Counter(verdict for verdict, _ in firings(daemon)) == {"skipped": 1, "fired": 1}
    assert "29 earlier firings" in firings(daemon)[0][1]


def test_a_trigger_that_skips_what_it_missed_waits_for_its_next_instant(daemon: Daemon) -> None:
    daemon.add_stream(triggers=[{**HOUR, "missed": "skip"}])
    daemon.ingest(NEW)
    daemon.clock.offset += timedelta(hours=1, minutes=30)
    daemon.settle()
    assert [verdict for verdict, _ in firings(daemon)] == ["skipped"]
    assert daemon.versions() == {1: "live"}


def test_a_firing_during_a_decision_is_deferred_and_judged_at_its_end(daemon: Daemon) -> None:
    daemon.add_stream(triggers=[HOUR])
    daemon.ingest(NEW)
    decision.request(daemon.app, "s", strategy=None, actor="test")
    daemon.clock.offset += timedelta(hours=1)
    daemon.engine.turn()
    assert [verdict for verdict, _ in firings(daemon)] == ["deferred"]
    daemon.settle()
    assert firings(daemon) == [("declined", "no new data is pending (deferred before)")]


def test_an_amount_trigger_fires_once_enough_documents_are_pending(daemon: Daemon) -> None:
    daemon.add_stream(triggers=[{"kind": "amount", "documents": 50}])
    daemon.ingest(NEW, name="first")
    daemon.settle()
    assert daemon.versions() == {1: "live"}
    daemon.ingest("a second batch has got its own strange vocabulary again", name="second")
    daemon.settle()
    assert daemon.versions() == {1: "retired", 2: "live"}


def test_an_amount_trigger_fires_again_where_a_rollback_ended_its_decision(daemon: Daemon) -> None:
    daemon.add_stream(triggers=[{"kind": "amount", "documents": 50}])
    daemon.ingest(NEW, documents=60, name="first")
    daemon.settle()
    assert daemon.versions() == {1: "retired", 2: "live"}
    later = daemon.ingest("a second batch has got its own strange vocabulary again", documents=60, name="second")
    daemon.engine.turn()
    rollback.roll_back(daemon.app, "s", to=None, reason="worse in production", actor="test")
    daemon.settle()
    assert daemon.batch_states()[later] == "trained"
    assert sorted(verdict for verdict, _ in firings(daemon)) == ["fired"] * 3


def test_an_amount_trigger_fires_again_for_a_batch_that_was_released_after_a_rollback(daemon: Daemon) -> None:
    daemon.add_stream(triggers=[{"kind": "amount", "documents": 50}])
    batch = daemon.ingest(NEW, documents=60)
    daemon.settle()
    rollback.roll_back(daemon.app, "s", to=None, reason="too early", actor="test")
    daemon.settle()
    assert daemon.batch_states() == {batch: "held"}
    batches.release(daemon.app, batch, actor="test")
    daemon.settle()
    assert daemon.versions() == {1: "retired", 2: "retired", 3: "live"}


def test_a_cron_expression_is_read_in_its_zone_across_a_change_of_clocks() -> None:
    trigger = triggers.build(CronTrigger(cron="30 2 * * *"), "Europe/Zurich")
    zone = ZoneInfo("Europe/Zurich")
    at, seen = datetime(2026, 3, 27, 12, tzinfo=UTC), []
    for _ in range(4):
        found = trigger.next_after(at, start=at)
        assert found is not None
        seen.append(found.astimezone(zone))
        at = found
    assert len({one.date() for one in seen}) == 4


def test_an_interval_keeps_its_grid_when_a_firing_is_late() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    trigger = triggers.build(IntervalTrigger(every_seconds=60), "UTC")
    assert trigger.next_after(start + timedelta(seconds=61.5), start=start) == start + timedelta(seconds=120)


@pytest.mark.parametrize(
    ("settings", "timezone", "message"),
    [
        (CronTrigger(cron="never"), "UTC", "five fields are needed, not 1"),
        (CronTrigger(cron="99 3 * * *"), "UTC", r"the last value \(99\) is higher than the maximum value \(59\)$"),
        (AmountTrigger(documents=1), "Mars/Olympus", "unknown time zone"),
    ],
)
def test_what_cannot_be_a_trigger_is_one_line_that_says_what_to_do(
    settings: TriggerSettings, timezone: str, message: str
) -> None:
    with pytest.raises(BadInput, match=message) as raised:
        triggers.build(settings, timezone)
    assert "\n" not in raised.value.message
