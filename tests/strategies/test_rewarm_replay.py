"""Re-warm and replay: how much of what, and the life of an infinite schedule's trunk."""

from typing import Any

import pytest

from strategies.contract import Plan, Signals, TrainTemplate
from strategies.mixing.replay import ReplayMixer
from strategies.settings import Json
from tests.strategies.makers import (
    TRUNK,
    cosine_schedule,
    infinite_schedule,
    plan,
    replay_mixing,
    signals,
    source,
    train_job,
    train_jobs,
    values,
)

INFINITE = {"kind": "infinite"}


def train(given: Signals | None = None, **settings: Any) -> TrainTemplate:
    return train_job(plan(given, **settings))


def shifted(loss: float | None, **changes: Any) -> Signals:
    return signals(new=(source("batch-3", loss=loss),), **changes)


# --- replay ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "share"),
    [(2.0, "0.05"), (3.14, "0.05"), (3.16, "0.1"), (3.44, "0.1"), (3.46, "0.25"), (9.0, "0.25")],
)
def test_the_share_follows_the_measured_shift(loss: float, share: str) -> None:
    assert replay_mixing(train(shifted(loss))).share == share


def test_the_shift_is_weighted_by_tokens() -> None:
    new = (source("batch-3", loss=3.0, tokens=900), source("batch-4", loss=6.0, tokens=100))
    made = plan(signals(new=new))
    assert made.values["shift"].value == pytest.approx(0.1)
    assert made.values["replay"].value == 0.10
    assert "0.10" in made.values["replay"].origin


def test_without_an_anchor_old_batches_are_the_reference() -> None:
    assert replay_mixing(train(shifted(3.4, anchor=None))).share == "0.1"
    assert replay_mixing(train(shifted(3.4, anchor=source("anchor", loss=None)))).share == "0.1"


def test_without_any_measurement_the_share_is_five_percent() -> None:
    made = plan(shifted(None))
    assert (made.values["replay"].value, made.values["replay"].origin) == (0.05, "default: nothing was measured")


def test_with_nothing_to_replay_the_share_is_none_and_the_reason_says_so() -> None:
    made = plan(signals(old=(), anchor=None), mixing={"share": 0.3})
    mixing = replay_mixing(train_job(made))
    assert (mixing.share, mixing.old) == ("0.0", {})
    assert "nothing to replay" in made.reason


@pytest.mark.parametrize("mixing", ["new", "everything"])
def test_a_mixing_that_replays_nothing_says_so_though_there_is_something_old(mixing: str) -> None:
    left_out = plan(mixing=mixing).values["replay"]
    assert (left_out.value, left_out.origin) == (0.0, "the mixing puts no old rows in place of new ones")
    alone = plan(signals(old=(), anchor=None), mixing=mixing).values["replay"]
    assert (alone.value, alone.origin) == (0.0, "there is nothing to replay")


def test_without_an_anchors_loss_nothing_is_said_of_it() -> None:
    origins = [plan(signals(anchor_rise=rise)).values["replay_raise"].origin for rise in (None, 0.0)]
    assert origins == ["no rise of an anchor's loss was measured", "the anchor's loss is within half its tolerance"]


def test_old_sources_weigh_what_was_seen_of_them_and_the_anchor_all_its_rows() -> None:
    assert replay_mixing(train()).old == {"anchor": "500", "batch-1": "700", "batch-2": "400"}


def test_the_users_share_is_taken_as_it_is() -> None:
    made = plan(shifted(9.0, anchor_rise=0.9), mixing={"share": 0.02})
    assert (replay_mixing(train_job(made)).share, made.values["replay"].origin) == ("0.02", "settings")


@pytest.mark.parametrize(("rise", "share"), [(None, 0.05), (0.025, 0.05), (0.026, 0.10)])
def test_half_the_anchors_tolerance_raises_the_share_a_notch(rise: float | None, share: float) -> None:
    made = plan(signals(anchor_rise=rise, anchor_tolerance=0.05))
    assert made.values["replay"].value == share
    assert made.values["replay_raise"].value == (share > 0.05)


def test_the_raise_grows_only_while_the_anchor_still_rises() -> None:
    first = values(plan(signals(anchor_rise=0.03)))
    still = plan(signals(anchor_rise=0.04, parent_settings=first))
    steady = plan(signals(anchor_rise=0.03, parent_settings=first))
    back = plan(signals(anchor_rise=0.01, parent_settings=values(still)))
    assert [one.values["replay"].value for one in (still, steady, back)] == [0.25, 0.10, 0.05]


def test_after_refusals_replay_is_raised_first_and_the_rate_halved_at_the_top() -> None:
    refused: list[Json] = []
    seen: list[tuple[float, float]] = []
    for _ in range(5):
        made = plan(shifted(3.4, refused=tuple(refused)))
        refused.append(values(made))
        seen.append((made.values["replay"].value, made.values["learning_rate"].value))
    assert seen == [(0.1, 3e-4), (0.25, 3e-4), (0.5, 3e-4), (0.5, 1.5e-4), (0.5, 0.75e-4)]
    assert made.values["replay"].origin.startswith("raised after refusal, from 0.1")


@pytest.mark.parametrize(("changes", "settings"), [({}, {"mixing": {"share": 0.1}}), ({"old": (), "anchor": None}, {})])
def test_a_share_that_cannot_be_raised_leaves_the_rate_to_halve(changes: Json, settings: Json) -> None:
    refused = (values(plan(signals(**changes), **settings)),)
    made = plan(signals(**changes, refused=refused), **settings)
    assert made.values["replay"].value == refused[0]["replay"]
    assert made.values["learning_rate"].value == 1.5e-4


def test_another_schedule_is_difference_enough_after_a_refusal() -> None:
    refused = (values(plan(schedule=INFINITE)),)
    assert plan(signals(refused=refused)) == plan()


# --- one cosine --------------------------------------------------------------------------------------------------


def test_a_stage_goes_on_where_the_parents_cursors_stood_and_leaves_its_own() -> None:
    assert (train().mixing.cursor, train().state) == (None, ("state/mixing",))
    assert train(signals(parent_state=("state/mixing",))).mixing.cursor == "@live/state/mixing"


@pytest.mark.parametrize(
    ("parent_state", "tuner", "reference"),
    [(("state/optimizer",), "full", "@live/state/optimizer"), ((), "full", None), (("state/optimizer",), "lora", None)],
)
def test_moments_are_kept_where_asked_and_possible(
    parent_state: tuple[str, ...], tuner: str, reference: str | None
) -> None:
    given = signals(parent_state=parent_state, parent_settings={"tuner": tuner})
    job = train(given, keep_optimizer=True)
    assert (job.optimizer, job.state) == (reference, ("state/mixing", "state/optimizer"))
    assert train(given).optimizer is None


def test_rewarming_from_the_last_rate_takes_it_from_the_parent() -> None:
    parent = values(plan())
    schedule = cosine_schedule(train(signals(parent_settings=parent), schedule={"warmup_start": "last_lr"}))
    assert schedule.warmup_start == "last_lr"
    assert schedule.last_lr == pytest.approx(3e-5)
    assert cosine_schedule(train(schedule={"warmup_start": "last_lr"})).warmup_start == "zero"


# --- the infinite schedule ---------------------------------------------------------------------------------------


def second_stage(first: Plan, **changes: Any) -> Signals:
    old = (source("batch-1", 800, seen_rows=700), source("batch-3", 1600, seen_rows=1300))
    plain = {
        "new": (source("batch-4"),),
        "old": old,
        "parent_state": TRUNK,
        "parent_settings": values(first),
        "stage": 2,
    }
    return signals(**{**plain, **changes})


def test_the_first_stage_begins_a_trunk_and_anneals_a_release() -> None:
    trunk, release = train_jobs(plan(schedule=INFINITE))
    phases = [getattr(trunk.schedule, phase) for phase in ("warmup", "cooldown", "constant", "anneal")]
    assert (trunk.init, trunk.optimizer, phases) == ("@live/answer/model", None, [10, 60, 16, 0])
    assert infinite_schedule(trunk).constant_lr == pytest.approx(1.65e-4)
    assert trunk.state == TRUNK
    assert (release.init, release.optimizer) == ("@trunk/answer/model", "@trunk/state/optimizer")
    assert (release.mixing.cursor, infinite_schedule(release).anneal, release.state) == ("@trunk/state/mixing", 14, ())
    assert trunk.steps + release.steps == 100


def test_the_next_stage_resumes_the_trunk_without_rewarming() -> None:
    made = plan(second_stage(plan(schedule=INFINITE)), schedule=INFINITE)
    trunk = train_job(made, "trunk")
    assert (trunk.init, trunk.optimizer) == ("@live/state/trunk", "@live/state/optimizer")
    assert trunk.mixing.cursor == "@live/state/mixing"
    schedule = infinite_schedule(trunk)
    assert (schedule.warmup, schedule.cooldown, schedule.constant) == (0, 0, trunk.steps)
    assert made.reason.startswith("Continues the trunk")


def test_rows_that_only_the_release_took_are_new_again_once() -> None:
    first = plan(schedule=INFINITE, mixing={"share": 0.0})
    assert first.values["left_over"].value == {"batch-3": 1600 - 86 * 16}
    second = plan(second_stage(first), schedule=INFINITE, mixing={"share": 0.0})
    mixing = replay_mixing(train_job(second, "trunk"))
    assert mixing.new == ("batch-4", "batch-3")
    assert set(mixing.old) == {"anchor", "batch-1", "batch-3"}, "a batch is replayed, whatever was left of it"
    assert second.values["rows"].value == 1600 + 224
    assert set(second.values["left_over"].value) == {"batch-4"}
    assert [replay_mixing(job).most for job in train_jobs(second)] == [{"batch-3": 224}] * 2


@pytest.mark.parametrize(("share", "displaced"), [(0.0, False), (0.25, True)])
def test_left_over_is_what_the_release_alone_draws(share: float, displaced: bool) -> None:
    first = plan(schedule=INFINITE, mixing={"share": share})
    trunk, release = train_jobs(first)
    rows, taken = {"batch-3": 1600, "anchor": 500, "batch-1": 800, "batch-2": 400}, [0]
    state: Json | None = None
    for job in (trunk, release):
        mixer = ReplayMixer(replay_mixing(job), rows, state)
        for step in range(1, job.steps + 1):
            mixer.draw(step)
        state = mixer.state_dict()
        taken.append(state["sources"]["batch-3"]["cuts"][-1][-1])
    _, by_trunk, by_both = taken
    assert first.values["left_over"].value == {"batch-3": by_both - by_trunk}
    assert (by_both < 1600) == displaced


def test_a_batch_is_carried_and_replayed_where_nothing_else_could_be() -> None:
    old = (source("batch-3", 1600, seen_rows=1300),)
    made = plan(second_stage(plan(schedule=INFINITE), old=old, anchor=None), schedule=INFINITE)
    mixing = replay_mixing(train_job(made, "trunk"))
    assert mixing.new == ("batch-4", "batch-3")
    assert set(mixing.old) == {"batch-3"}


@pytest.mark.parametrize(
    ("changes", "obstacle"),
    [
        ({"parent_state": ("state/mixing",)}, "has no trunk"),
        ({"parent_settings": {"schedule": "cosine", "tuner": "full"}}, "trained otherwise"),
        ({"training": {"tuner": "lora"}}, "trained otherwise"),
        ({"training": {"learning_rate": 1e-3}}, "takes a warm-up"),
    ],
)
def test_a_trunk_that_cannot_go_on_is_begun_anew(changes: Json, obstacle: str) -> None:
    made = plan(second_stage(plan(schedule=INFINITE), **changes), schedule=INFINITE)
    assert obstacle in made.reason
    trunk = train_job(made, "trunk")
    assert (trunk.init, trunk.optimizer) == ("@live/answer/model", None)
    assert trunk.schedule.warmup == 10
    assert replay_mixing(trunk).new == ("batch-4",)


def test_a_trunk_whose_rate_was_halved_goes_on_at_that_rate() -> None:
    first = plan(schedule=INFINITE, mixing={"share": 0.5})
    halved = plan(signals(refused=(values(first),)), schedule=INFINITE, mixing={"share": 0.5})
    made = plan(second_stage(halved), schedule=INFINITE, mixing={"share": 0.5})
    assert made.values["trunk"].value == "resumed"
    rate, before = (infinite_schedule(train_job(one, "trunk")).constant_lr for one in (made, halved))
    assert rate == before == pytest.approx(0.825e-4)


@pytest.mark.parametrize("rows", [1, 16, 17, 40, 200, 1000])
def test_phases_add_up_however_short_the_stage(rows: int) -> None:
    made = plan(signals(new=(source("batch-3", rows),)), schedule=INFINITE)
    trunk, release = train_jobs(made)
    lengths = [getattr(trunk.schedule, phase) for phase in ("warmup", "cooldown", "constant")]
    assert sum(lengths) == trunk.steps >= 1
    assert infinite_schedule(release).anneal == release.steps >= 1
    assert trunk.steps + release.steps == max(2, -(-rows // 16))
