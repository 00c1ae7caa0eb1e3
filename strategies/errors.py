"""Errors of the strategies; every one is a :class:`StrategyError` whose message is one line for the user."""

# ruff: noqa: N818 - the names say what went wrong; the base class already says that they are errors


class StrategyError(Exception):
    """A strategy cannot go on: the message says what is wrong and what to do."""


class BadPlan(StrategyError):
    """Settings, signals or a plan do not fit together."""


class BadState(StrategyError):
    """State of an earlier stage or checkpoint does not belong to what is running."""


class BadScores(StrategyError):
    """A metric was asked of scores that it is not defined for."""


class Refused(StrategyError):
    """A job's input cannot be used, and trying again cannot help."""


class Diverged(StrategyError):
    """Training produced a loss, gradient or weight that is not finite, more often than is forgiven."""
