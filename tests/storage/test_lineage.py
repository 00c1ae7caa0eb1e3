"""Questions about the lineage, against the same answers computed naively."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from storage import lineage
from storage.database import Database
from storage.lineage import BatchUse
from storage.tables import Promotion, Version
from tests.storage import rows

VERSIONS, BATCHES = 40, 12


class Graph:
    """A random lineage in SQL, and beside it in plain dictionaries."""

    def __init__(self, session: Session, seed: int) -> None:
        dice = random.Random(seed)
        rows.add_stream(session)
        self.batches = [rows.add_batch(session, f"b{number}") for number in range(BATCHES)]
        self.parents: dict[int, set[int]] = {}
        self.seen: dict[int, set[int]] = {}
        self.roles: dict[int, set[tuple[int, str]]] = {}
        self.versions: list[Version] = []
        for number in range(1, VERSIONS + 1):
            self._add(session, dice, number)

    def _add(self, session: Session, dice: random.Random, number: int) -> None:
        chosen = dice.sample(self.versions, k=min(len(self.versions), dice.choice([0, 1, 1, 1, 2, 3])))
        version = rows.add_version(session, number, tuple(chosen))
        self.versions.append(version)
        self.parents[version.id] = {parent.id for parent in chosen}
        self.seen[version.id], self.roles[version.id] = set(), set()
        for batch in dice.sample(self.batches, k=dice.randrange(3)):
            role = dice.choice(["trained", "replayed"])
            rows.add_use(session, version, batch, role=role)
            self.seen[version.id].add(batch.id)
            self.roles[version.id].add((batch.id, role))

    def above(self, version_id: int) -> set[int]:
        return {version_id}.union(*(self.above(parent) for parent in self.parents[version_id]))

    def below(self, version_ids: set[int]) -> list[int]:
        return [one for one in self.parents if self.above(one) & version_ids]


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.write() as opened:
        yield opened


@pytest.fixture(params=[1, 2])
def graph(session: Session, request: pytest.FixtureRequest) -> Graph:
    return Graph(session, request.param)


def test_ancestors_and_descendants(session: Session, graph: Graph) -> None:
    for version in graph.versions:
        above = sorted(graph.above(version.id) - {version.id}, reverse=True)
        below = [one for one in graph.below({version.id}) if one != version.id]
        found = lineage.ancestors(session, version.id), lineage.descendants(session, version.id)
        assert found == (above, below)


def test_batches_behind_a_version(session: Session, graph: Graph) -> None:
    for version in graph.versions:
        expected = sorted(set().union(*(graph.roles[one] for one in graph.above(version.id))))
        found = lineage.batches_behind(session, version.id)
        assert found == [BatchUse(batch_id=batch_id, role=role) for batch_id, role in expected]


def test_versions_that_saw_a_batch(session: Session, graph: Graph) -> None:
    numbers = {version.id: version.number for version in graph.versions}
    for batch in graph.batches:
        first = {one for one, seen in graph.seen.items() if batch.id in seen}
        expected = [numbers[one] for one in graph.below(first)]
        assert lineage.versions_that_saw_batch(session, batch.id) == expected


def test_batches_only_behind_the_abandoned(session: Session, graph: Graph) -> None:
    def behind(version_id: int) -> set[int]:
        return {batch for one in graph.above(version_id) for batch in graph.seen[one]}

    for target, *abandoned in [(1, 20, 30), (10, 40), (39, 40), (5, 6, 7, 8)]:
        expected = sorted(set().union(*(behind(one) for one in abandoned)) - behind(target))
        assert lineage.batches_only_behind(session, abandoned, target) == expected


def test_the_anchor_is_never_left_behind(session: Session) -> None:
    rows.add_stream(session)
    anchor = rows.add_batch(session, "anchor", kind="anchor")
    base = rows.add_version(session, 1)
    bad = rows.add_version(session, 2, (base,))
    rows.add_use(session, bad, anchor, role="replayed")
    assert lineage.batches_only_behind(session, [bad.id], base.id) == []


def test_each_walk_is_one_query(session: Session, graph: Graph) -> None:
    statements: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        lineage.ancestors(session, VERSIONS)
        lineage.versions_that_saw_batch(session, graph.batches[0].id)
        lineage.batches_only_behind(session, [VERSIONS], 1)
        lineage.live_stack(session, rows.STREAM)
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert len(statements) == 4


class Story:
    """Promotions and rollbacks of one stream, by version number."""

    def __init__(self, session: Session, steps: str) -> None:
        self.session = session
        self.versions: dict[int, Version] = {}
        self.live: Version | None = None
        rows.add_stream(session)
        for step in steps.split():
            self.take(step)

    def take(self, step: str) -> None:
        number = int(step.lstrip("<"))
        version = self.versions.get(number) or rows.add_version(self.session, number)
        self.versions[number] = version
        rows.add_promotion(self.session, version, self.live, "rollback" if step.startswith("<") else "promotion")
        self.live = version
        others = update(Version).where(Version.state == "live").values(state="retired")
        self.session.execute(others)
        self.session.execute(update(Version).where(Version.id == version.id).values(state="live"))


@pytest.mark.parametrize(
    ("steps", "target"),
    [
        ("1", None),
        ("1 2 3", 2),
        ("1 2 3 <2", 1),
        ("1 2 3 <2 <1", None),
        ("1 2 3 <2 4", 2),
        ("1 2 3 <2 4 <2", 1),
        ("1 2 3 4 <1 5", 1),
        ("1 2 3 4 <1 5 <1", None),
        ("1 2 3 <2 3 4", 3),
        ("1 2 <1 2", 1),
        ("1 2 3 <1 4 <3 5 <3", 4),
    ],
)
def test_a_rollback_goes_to_the_version_that_was_live_before(session: Session, steps: str, target: int | None) -> None:
    story = Story(session, steps)
    before = lineage.live_stack(session, rows.STREAM)[:-1]
    number = {version.id: number for number, version in story.versions.items()}
    assert (number[before[-1].version_id] if before else None) == target


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        ("1 2 3", {}),
        ("1 2 3 <1", {2: 4, 3: 4}),
        ("1 2 3 4 <3 <1", {2: 6, 3: 6, 4: 5}),
        ("1 2 3 <1 <3", {1: 5, 2: 4}),
        ("1 2 3 <1 4 <3", {2: 4, 4: 6}),
        ("1 2 3 <1 2", {3: 4}),
    ],
)
def test_a_version_is_left_behind_by_the_rollback_that_took_it_away(
    session: Session, steps: str, left: dict[int, int]
) -> None:
    story = Story(session, steps)
    number = {version.id: number for number, version in story.versions.items()}
    promotions = session.scalars(select(Promotion.id).order_by(Promotion.id)).all()
    found = lineage.left_behind(session, rows.STREAM)
    assert {number[one]: promotions.index(rollback.id) + 1 for one, rollback in found.items()} == left


def test_a_version_is_found_by_being_live_and_by_its_number(session: Session) -> None:
    rows.add_stream(session)
    first = rows.add_version(session, 1)
    second = rows.add_version(session, 2, (first,), state="live")
    rows.add_version(session, 3, (second,))
    assert lineage.live_version(session, rows.STREAM) is second
    assert lineage.version_by_number(session, rows.STREAM, 1) is first
    assert lineage.version_by_number(session, rows.STREAM, 9) is None
