"""Rational shares and weights, written as decimal strings: the same arithmetic on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from strategies.errors import BadPlan

DIGITS = 6
"""Decimals that a computed weight is kept with."""


def fraction(text: str, what: str) -> Fraction:
    """The number that ``text`` spells; ``what`` names it in the error."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise BadPlan(f"{what} {text!r} is not a number; write it in decimals, such as 0.05") from error


def rounded(weights: Mapping[str, float], rest: str) -> dict[str, Fraction]:
    """``weights``, which sum to 1, rounded down to :data:`DIGITS` decimals; ``rest`` gets what the rounding leaves."""
    unit = 10**DIGITS
    exact = {name: Fraction(max(0, int(weight * unit)), unit) for name, weight in weights.items()}
    exact[rest] = 1 - sum((weight for name, weight in exact.items() if name != rest), Fraction(0))
    return exact


def decimals(weight: Fraction) -> str:
    """The weight as a decimal string; one that has no short one, such as 1/3, stays a fraction."""
    scaled = weight * 10**12
    if scaled.denominator != 1:
        return str(weight)
    whole, part = divmod(int(scaled), 10**12)
    return f"{whole}.{part:012d}".rstrip("0").rstrip(".")
