"""What requests carry."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from strategies.settings import Closed


class NewStream(Closed):
    """Settings as written, and where each key was written."""

    settings: dict[str, Any] = Field(description="the stream's settings; `rekindle stream schema` describes them")
    origins: dict[str, str] = Field(default_factory=dict, description="dotted key -> file, --set, --model …")


class Changes(Closed):
    """Dotted keys and their new values."""

    changes: dict[str, Any] = Field(min_length=1, description="dotted key -> value")
    origins: dict[str, str] = Field(default_factory=dict, description="dotted key -> where it was written")


class Rebase(Closed):
    """Another base model."""

    model: str = Field(description="folder or hub id")
    revision: str | None = Field(None, description="hub revision")


class Batches(Closed):
    """Some batches of a stream; none named: all that are meant."""

    batches: tuple[int, ...] = ()


class Reason(Closed):
    """Why it is done."""

    reason: str = Field(max_length=2000)


class Retrain(Closed):
    """A retrain as asked for."""

    strategy: str | None = Field(None, description="a strategy's name; none: the stream's own")
    dry_run: bool = False


class Merge(Closed):
    """Versions to merge, and how."""

    versions: tuple[int, ...] = Field(max_length=64, description="numbers, in the order that the weights have")
    method: str = Field(description="ties, soup, interpolate …; a wrong one is answered with the list")
    settings: dict[str, Any] = Field(default_factory=dict, description="dotted key -> value, of the method")
    weights: tuple[float, ...] = Field((), description="one for each version, for methods that heed them")
    base: int | None = Field(None, ge=1, description="counted from; none: the nearest version that all came from")
    into: Literal["model", "adapter"] | None = Field(
        None, description="a full model, or an adapter of the first version's rank; none: an adapter of adapters"
    )
    dry_run: bool = False


class Backtest(Closed):
    """Another policy, and how far the recorded stream is replayed under it."""

    changes: dict[str, Any] = Field(default_factory=dict, description="dotted key -> value, as in Changes")
    until: int | None = Field(None, ge=1, description="the last batch; none: the last that was retrained on")
    caller: str = Field("", max_length=64, description="the same at every ask; other callers are refused meanwhile")
    scratch: str | None = Field(None, max_length=100, description="the replay to go on with, as an answer named it")


class Promote(Closed):
    """A promotion by hand."""

    force: bool = False
    reason: str = Field(max_length=2000)


class Rollback(Closed):
    """A rollback: to the version that was live before, unless one is named."""

    to: int | None = Field(None, ge=1)
    reason: str = Field(max_length=2000)


class Evaluate(Closed):
    """A measurement of a version, on a file of the user's if one is named."""

    data: str | None = None


class Export(Closed):
    """Where an export goes."""

    directory: str
    as_adapter: bool = False


class Directory(Closed):
    """A folder on the daemon's machine."""

    directory: str


class DryRun(Closed):
    """Whether only to say what would be done."""

    dry_run: bool = False


class TokenWanted(Closed):
    """A key as asked for."""

    name: str
    role: str = "operator"
    expires_in_s: float | None = Field(None, gt=0, le=10 * 366 * 86400)
