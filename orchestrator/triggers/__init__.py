"""When a stream retrains. A new trigger: its settings in orchestrator/settings.py, one file here, one line in KINDS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from orchestrator.errors import BadInput
from orchestrator.settings import TriggerSettings
from orchestrator.triggers.amount import AmountTrigger
from orchestrator.triggers.contract import Facts, Opinion, Trigger
from orchestrator.triggers.cron import CronTrigger
from orchestrator.triggers.interval import IntervalTrigger

KINDS: dict[str, Callable[[Any, str], Trigger]] = {
    "cron": CronTrigger,
    "interval": IntervalTrigger,
    "amount": AmountTrigger,
}


def build(settings: TriggerSettings, timezone: str) -> Trigger:
    """The trigger that the settings describe.

    Raises:
        BadInput: the zone is unknown or the expression does not parse.
    """
    check_timezone(timezone)
    try:
        return KINDS[settings.kind](settings, timezone)
    except ValueError as error:
        raise BadInput(f"trigger {settings.name!r} does not parse: {error}") from error


def check_timezone(timezone: str) -> None:
    """Refuse a zone that is not in the IANA data base.

    Raises:
        BadInput: the zone is unknown.
    """
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadInput(f"unknown time zone {timezone!r}; use an IANA name such as Europe/Zurich or UTC") from error


__all__ = ["KINDS", "Facts", "Opinion", "Trigger", "build", "check_timezone"]
