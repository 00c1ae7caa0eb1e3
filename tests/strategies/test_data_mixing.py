"""Plans of weighted mixing: domains, first weights, the jobs that search, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from strategies.agent import TRIED, UNTAUGHT
from strategies.chooser import choice
from strategies.chooser.choice import StrategySettings
from strategies.contract import ClassFacts, FitTemplate, ProxyTemplate, Signals, SourceFacts
from strategies.contract.graph import batches_drawn, needs
from strategies.errors import BadPlan, BadState
from strategies.named.data_mixing import DATA_MIXING
from strategies.parts import GroupDroObjective, SkillItReweighting, WeightedMixing
from strategies.planning.common import total_rows
from strategies.planning.stage import everything
from strategies.settings import Json, TrainingSettings
from strategies.settings.agent import ProxySettings
from strategies.settings.mixing import RegMixSettings
from tests.benchmarks import mixing_agent_tables as tables
from tests.benchmarks import report
from tests.benchmarks.harness import RESULTS
from tests.strategies.makers import (
    cosine_schedule,
    infinite_schedule,
    plan,
    signals,
    source,
    train_job,
    train_jobs,
    weighted_mixing,
)

TRUNKS = {"schedule": "infinite", "tuner": "full", "learning_rate": 3e-4, "constant_learning_rate": 1.65e-4}
"""What a version with a trunk was made with."""


def measured(**changes: Any) -> Signals:
    """One new batch, two old ones of which the first's eval set is pooled, and an anchor."""
    plain = {
        "new": (source("batch-3").model_copy(update={"eval_set": "batch-3"}),),
        "old": (
            source("batch-1", 800, seen_rows=700),
            source("batch-2", 400, seen_rows=400).model_copy(update={"eval_set": "batch-2"}),
        ),
        "anchor": source("anchor", 500, seen_rows=500, tokens=3000).model_copy(update={"eval_set": "anchor"}),
        "pools": ("pool-1",),
    }
    return signals(**{**plain, **changes})


def mixing(given: Signals | None = None, **settings: Any) -> WeightedMixing:
    made = plan(given or measured(), name="data-mixing", mixing={"kind": "weighted", **settings})
    return weighted_mixing(train_job(made))


def weights(found: WeightedMixing) -> dict[str, float]:
    given = {name: float(weight) for name, weight in found.weights.items()}
    return {**given, found.rest: 1 - sum(given.values())}


def test_every_batch_with_an_eval_set_of_its_own_is_a_domain_and_older_ones_are_one() -> None:
    found = mixing()
    assert found.domains == {
        "batch-3": ("batch-3",), "anchor": ("anchor",), "batch-2": ("batch-2",), "earlier": ("batch-1",)
    }  # fmt: skip
    assert found.measured["earlier"] == ("pool-1",)
    assert found.new == ("batch-3",)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("uniform", {"batch-3": 0.25, "anchor": 0.25, "batch-2": 0.25, "earlier": 0.25}),
        ("prior", {"batch-3": 1 / 6, "anchor": 0.5, "batch-2": 1 / 6, "earlier": 1 / 6}),
        ({"batch-3": 0.7}, {"batch-3": 0.7, "anchor": 0.1, "batch-2": 0.1, "earlier": 0.1}),
    ],
)
def test_first_weights(asked: str | dict[str, float], expected: dict[str, float]) -> None:
    assert weights(mixing(weights=asked)) == pytest.approx(expected, abs=1e-5)


def test_more_batches_than_can_be_mixed_one_by_one_go_together_the_smallest_first() -> None:
    new = tuple(source(f"batch-{at}", tokens=100 + at) for at in range(100))
    old = tuple(
        source(name, tokens=600 + at).model_copy(update={"eval_set": name})
        for at, name in enumerate(f"batch-{200 + at}" for at in range(50))
    )
    found = mixing(measured(new=new, old=old))
    assert set(found.domains["smaller"]) == {f"batch-{at}" for at in range(69)}
    assert set(found.domains["earlier"]) == {f"batch-{200 + at}" for at in range(20)}
    assert set(found.measured["earlier"]) == {"pool-1", *found.domains["earlier"]}
    assert {"anchor", *(f"batch-{at}" for at in (69, 99, 220, 249))} < found.domains.keys()
    assert len(found.domains) == 64
    assert sum(weights(found).values()) == pytest.approx(1)


def test_what_measures_how_alike_domains_are_to_the_new_one_stands_in_the_plan() -> None:
    old = tuple(
        source(name, 400, seen_rows=400, tokens=tokens).model_copy(update={"similarity": near})
        for name, tokens, near in (("batch-1", 1000, 0.2), ("batch-2", 3000, 0.6))
    )
    found = mixing(measured(old=old, new=(source("batch-3").model_copy(update={"similarity": 1.0, "eval_set": "b"}),)))
    assert found.similarity == pytest.approx({"batch-3": 1.0, "anchor": 0.0, "earlier": 0.5})


def test_replays_weights_give_old_domains_their_share_by_the_rows_that_were_seen() -> None:
    found = weights(mixing(weights="replay"))
    old = {name: weight for name, weight in found.items() if name != "batch-3"}
    assert sum(old.values()) == pytest.approx(0.05, abs=1e-5)
    assert old["earlier"] / old["anchor"] == pytest.approx(700 / 500, rel=1e-3)


def test_data_mixing_is_skill_it_with_room_for_weights_to_move() -> None:
    made = plan(measured(), name="data-mixing")
    found = weighted_mixing(train_job(made))
    assert isinstance(found.reweight, SkillItReweighting)
    assert found.observe_every == 10
    assert made.values["replay"].value == 0.25
    assert "re-weighted by skill-it" in made.reason


def test_skill_its_targets_alone_count_by_their_mean_loss() -> None:
    graph = {"anchor": {"batch-3": 0.5}, "earlier": {"anchor": 0.5}}
    found = mixing(reweight={"kind": "skill-it", "graph": graph, "targets": ["batch-3"]}).reweight
    assert isinstance(found, SkillItReweighting)
    assert found.mean_loss
    assert found.graph["anchor"] == {"batch-3": 0.5}
    assert found.graph["batch-3"] == {"batch-3": 1.0}
    assert not found.graph["earlier"]


def test_new_names_the_decisions_own_batches_whatever_they_are_called() -> None:
    two = measured(new=(source("batch-3", tokens=300), source("batch-4", tokens=100)))
    expected = {"batch-3": 0.45, "batch-4": 0.15, "anchor": 0.2, "batch-2": 0.1, "earlier": 0.1}
    assert weights(mixing(two, weights={"new": 0.6, "anchor": 0.2})) == pytest.approx(expected, abs=1e-5)
    found = mixing(reweight={"kind": "skill-it", "graph": {"anchor": {"new": 0.5}}, "targets": ["new"]}).reweight
    assert isinstance(found, SkillItReweighting)
    assert found.graph == {"batch-3": {"batch-3": 1.0}, "anchor": {"batch-3": 0.5}, "batch-2": {}, "earlier": {}}


def test_names_that_are_not_there_now_are_left_out_and_the_plan_says_so() -> None:
    asked = {"kind": "weighted", "weights": {"new": 0.3, "batch-9": 0.5}, "reweight": "none"}
    made = plan(measured(), name="data-mixing", mixing=asked)
    found = weighted_mixing(train_job(made))
    expected = {"batch-3": 0.6, "anchor": 0.4 / 3, "batch-2": 0.4 / 3, "earlier": 0.4 / 3}
    assert weights(found) == pytest.approx(expected, abs=1e-5)
    assert (made.values["left_out"].value, made.values["left_out"].origin) == (
        ["batch-9"],
        "settings name them, but they are not there now",
    )


def test_without_any_of_its_targets_skill_its_weights_stay_for_a_stage() -> None:
    asked = {"kind": "weighted", "reweight": {"kind": "skill-it", "targets": ["batch-9"]}}
    made = plan(measured(), name="data-mixing", mixing=asked)
    found = weighted_mixing(train_job(made))
    assert found.reweight is None
    assert "none of its targets is there now" in made.values["reweight"].origin


def test_what_is_not_turned_stays_as_the_named_strategy_has_it() -> None:
    made = plan(measured(), name="data-mixing", mixing={"updates": 5, "reweight": {"eta": 0.7}})
    found = weighted_mixing(train_job(made))
    assert isinstance(found.reweight, SkillItReweighting)
    assert (found.reweight.eta, found.observe_every) == (0.7, 20)


def test_without_any_eval_set_the_weights_stay_and_the_plan_says_so() -> None:
    bare = signals()
    made = plan(bare, name="data-mixing")
    found = weighted_mixing(train_job(made))
    assert (found.reweight, found.observe_every) == (None, None)
    assert "no domain has an eval set" in made.values["reweight"].origin


def test_doremi_trains_a_reference_and_a_proxy_before_the_main_job() -> None:
    made = plan(measured(), name="data-mixing", mixing={"kind": "weighted", "reweight": "doremi"})
    assert list(made.jobs) == ["reference", "proxy", "train"]
    reference, proxy, main = train_jobs(made)
    assert isinstance(proxy.objective, GroupDroObjective)
    assert proxy.objective.prior == pytest.approx(weights(weighted_mixing(reference)))
    assert (reference.steps, proxy.steps, main.steps) == (25, 25, 100)
    assert needs(made, "proxy") == ("reference",)
    assert needs(made, "train") == ("proxy",)


def test_regmix_deals_its_runs_out_to_jobs_and_fits_them() -> None:
    made = plan(
        measured(),
        name="data-mixing",
        mixing={"kind": "weighted", "reweight": {"kind": "regmix", "runs": 30, "jobs": 4}},
    )
    proxies = [job for job in made.jobs.values() if isinstance(job, ProxyTemplate)]
    assert [len(job.mixtures) for job in proxies] == [8, 8, 8, 6]
    assert all(sum(one.values()) == pytest.approx(1) for job in proxies for one in job.mixtures)
    starts = [job.proxy.initial_steps * job.proxy.step_tokens for job in proxies]
    assert sum(starts) < 30 * proxies[0].proxy.step_tokens / 2, "the shared start costs less than the runs"
    fit = made.jobs["fit"]
    assert isinstance(fit, FitTemplate)
    assert (fit.fit.new, fit.fit.old) == (("batch-3",), ("anchor", "batch-2", "earlier"))
    assert needs(made, "train") == ("fit",)
    assert batches_drawn(made) == {"anchor", "batch-1", "batch-2", "batch-3"}


def test_from_the_base_every_domain_is_taught_for_as_long_as_all_rows_last() -> None:
    given = measured()
    made = plan(given, name="retrain", mixing={"kind": "weighted", "weights": "prior", "reweight": "doremi"})
    main = train_job(made)
    assert weights(weighted_mixing(main)) == pytest.approx(
        {"batch-3": 1 / 6, "anchor": 0.5, "batch-2": 1 / 6, "earlier": 1 / 6}, abs=2e-6
    )
    assert made.values["rows"].value == total_rows(everything(given))
    assert (main.init, weighted_mixing(main).cursor) == ("@base/answer/model", None)
    assert {job.init for job in made.jobs.values()} == {"@base/answer/model"}


@pytest.mark.parametrize("reweight", ["none", "skill-it", "doremi", "regmix"])
def test_an_infinite_schedules_release_keeps_the_weights_that_its_trunk_ended_with(reweight: str) -> None:
    made = plan(
        measured(parent_state=("state/mixing", "state/trunk", "state/optimizer"), parent_settings=TRUNKS),
        name="data-mixing",
        mixing={"kind": "weighted", "reweight": reweight},
        schedule="infinite",
    )
    trunk, release = train_job(made, "trunk"), weighted_mixing(train_job(made, "release"))
    assert (trunk.init, trunk.mixing.cursor) == ("@live/state/trunk", "@live/state/mixing")
    assert "state/mixture" in trunk.state
    assert (release.mixture, release.cursor) == ("@trunk/state/mixture", "@trunk/state/mixing")
    assert (release.reweight, release.observe_every) == (None, None)
    assert needs(made, "trunk") == {"doremi": ("proxy",), "regmix": ("fit",)}.get(reweight, ())
    assert made.values["left_over"].value == {}, "old domains hold what the release alone took"


def test_a_trunks_proxies_end_their_own_cosine() -> None:
    made = plan(measured(), name="data-mixing", mixing={"kind": "weighted", "reweight": "doremi"}, schedule="infinite")
    proxy, trunk = train_job(made, "proxy"), infinite_schedule(train_job(made, "trunk"))
    cosine = cosine_schedule(proxy)
    assert (cosine.lr, cosine.steps) == (trunk.constant_lr, proxy.steps)
    assert cosine.warmup > 0


def test_classes_of_new_and_of_old_documents_are_domains_of_their_own() -> None:
    def holds(name: str, *classes: str, **changes: Any) -> SourceFacts:
        facts = tuple(ClassFacts(name=one, documents=9, tokens=900, rows=30) for one in classes)
        return source(name, 60, **changes).model_copy(update={"classes": facts, "eval_set": name})

    given = measured(
        new=(holds("batch-3", "law", "code"),), old=(holds("batch-2", "law", seen_rows=60),), anchor=None, pools=()
    )
    found = mixing(given, domains="column")
    assert found.domains == {
        "new/code": ("batch-3/code",), "new/law": ("batch-3/law",), "old/law": ("batch-2/law",)
    }  # fmt: skip
    assert found.measured["old/law"] == ("batch-2/law",)
    assert found.divide == "column"


def agents_folder(place: Path) -> tuple[Path, str]:
    """A folder that a plan takes for an agent's, and its name."""
    weights = b"weights"
    card = json.dumps({"format": 1, "weights_sha256": hashlib.sha256(weights).hexdigest()}).encode()
    (place / "agent.json").write_bytes(card)
    (place / "agent.safetensors").write_bytes(weights)
    return place, hashlib.sha256(card).hexdigest()


def test_regmix_finds_a_mixture_for_an_agents_guard(tmp_path: Path) -> None:
    """The agent's own first weights stay; without an eval set there is no agent, and nothing is searched."""
    folder, _ = agents_folder(tmp_path)
    agent = {"kind": "agent", "folder": str(folder), "regmix": {"runs": 30, "jobs": 2}}
    asked = {"kind": "weighted", "reweight": agent}
    made = plan(measured(), name="data-mixing", mixing=asked)
    found = weighted_mixing(train_job(made))
    assert (list(made.jobs), needs(made, "train")) == (["proxy-1", "proxy-2", "fit", "train"], ("fit",))
    assert found.mixture == "@fit/state/mixture"
    assert found.weights == mixing(reweight={**agent, "regmix": None}).weights
    assert list(plan(signals(), name="data-mixing", mixing=asked).jobs) == ["train"]
    with pytest.raises(BadPlan, match=r"too few to fit; set mixing\.reweight\.regmix\.runs to 24"):
        mixing(reweight={**agent, "regmix": {"runs": 8}})


def test_an_agent_is_taken_from_a_folder_and_without_one_the_guards_weights_stay(tmp_path: Path) -> None:
    folder, named = agents_folder(tmp_path)
    (folder / "agent.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(BadState, match=r"agent\.safetensors cannot be read \(No such file"):
        mixing(reweight={"kind": "agent", "folder": str(tmp_path)})
    (tmp_path / "elsewhere").rename(folder / "agent.safetensors")
    with_agent = mixing(reweight={"kind": "agent", "folder": str(tmp_path)})
    assert with_agent.reweight is not None
    assert with_agent.reweight.kind == "agent"
    assert with_agent.reweight.sha256 == named
    asked = {"kind": "weighted", "reweight": {"kind": "agent", "folder": str(tmp_path)}}
    said = plan(measured(), name="data-mixing", mixing=asked).values["agent"]
    assert (said.value, said.origin) == (with_agent.reweight.sha256, str(tmp_path))
    made = plan(measured(), name="data-mixing", mixing={"kind": "weighted", "reweight": "agent"})
    assert f"none ships: {TRIED}" in made.values["reweight"].origin
    assert "the first weights, in which replay gives old domains at least 25 %" in made.values["reweight"].origin
    assert made.values["replay"].value == 0.25
    guarded = weighted_mixing(train_job(made))
    assert guarded.reweight is None
    assert weights(guarded)["batch-3"] == pytest.approx(0.75, abs=1e-5)


@pytest.fixture(scope="module")
def tried() -> Json:
    """What the largest benchmark of an agent that is there has found."""
    chapter = next(one for one in report.MEASURED if one.name == "mixing_agent")
    ((_, result),) = report.largest(chapter, RESULTS)
    return dict(result["measured"])


def test_why_no_agent_ships_is_what_was_measured(tried: Json) -> None:
    assert tables.tried(tried) == TRIED
    assert min(found["agent_minus_guard"] for found in tried["held_out"].values()) <= 0, "an agent that is ahead ships"


def test_why_skill_it_is_the_default_is_what_was_measured(tried: Json) -> None:
    assert tables.untaught(tried) == UNTAUGHT
    assert DATA_MIXING.note is not None
    assert UNTAUGHT[1:] in DATA_MIXING.note
    margins = [
        tables.compared(found, found["guard"])["fall"] - tables.compared(found, "skill-it")["fall"]
        for found in tried["held_out"].values()
    ]
    assert max(margins) > 0, "skill-it was ahead everywhere: say so"


def test_what_was_measured_is_said_in_a_sentence_that_can_be_read() -> None:
    assert max(len(said.split()) for said in (TRIED, UNTAUGHT)) <= 30


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mixing": {"kind": "weighted", "reweight": {"kind": "regmix", "runs": 8}}}, "too few to fit"),
        ({"mixing": {"kind": "weighted", "weights": {"batch-3": 1.5}}}, "sum to more than 1"),
        ({"mixing": {"kind": "weighted", "weights": {"batch-9": 0.5}}}, "none of the domains .* is there now"),
        ({"mixing": {"kind": "weighted", "weights": {"batch-3": 0.5}, "reweight": "regmix"}}, "remove mixing.weights"),
        ({"mixing": {"kind": "weighted", "domains": "column"}}, "classes were not measured"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadPlan, match=said):
        plan(measured(), name="data-mixing", **settings)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"weights": {"foo": 0.5}}, "names foo, which is no domain; new, earlier, smaller, anchor and batch-N are"),
        ({"weights": {"new/law": 0.5}}, "names new/law, which is no domain"),
        ({"weights": {"batch-1": 0.5}, "domains": "column"}, "no domain; new, new/CLASS and old/CLASS are"),
        ({"reweight": {"kind": "skill-it", "targets": ["foo"]}}, "names foo, which is no domain"),
        ({"reweight": {"kind": "skill-it", "graph": {"foo": {}}}}, "names foo, which is no domain"),
        ({"reweight": {"kind": "skill-it", "graph": {"new": {"foo": 1}}}}, "names foo, which is no domain"),
        ({"reweight": {"kind": "skill-it", "graph": {"new": {"anchor": -3}}}}, "has -3 from new to anchor"),
        ({"reweight": {"kind": "agent", "regmix": {}}}, r"regmix is about the guard .* give mixing\.reweight\.folder"),
        ({"reweight": {"kind": "agent", "patience": 5}}, r"patience is about the guard of an agent"),
        ({"domains": {"by": "batch", "clusters": {"most": 4}}}, "used when by is clusters, not batch"),
        ({"domains": {"by": "column", "clusters": {"most": 4}}}, "used when by is clusters, not column"),
        ({"weights": {"new": 1.0}, "reweight": "skill-it"}, "but new a first weight of 0, and skill-it goes on"),
        ({"weights": {"new": 1.0, "anchor": 0}, "reweight": "agent"}, "but new a first weight of 0, and agent goes on"),
        ({"weights": {"anchor": 1}, "reweight": "doremi"}, "but anchor a first weight of 0"),
        (
            {"weights": {"new/law": 0.5, "new/code": 0.5}, "domains": "clusters", "reweight": "skill-it"},
            "but new/law, new/code a first weight of 0",
        ),
    ],
)
def test_what_can_never_work_or_be_heeded_is_refused_before_anything_is_measured(asked: Json, said: str) -> None:
    settings = StrategySettings.model_validate({"name": "data-mixing", "mixing": {"kind": "weighted", **asked}})
    with pytest.raises(BadPlan, match=said):
        choice.check(settings, TrainingSettings(), "causal-lm")


@pytest.mark.parametrize(
    "asked",
    [
        {"weights": {"new": 0.9}, "reweight": "skill-it"},
        {"weights": {"new": 0.6, "anchor": 0.4}, "reweight": "skill-it"},
        {"weights": {"new": 1.0}, "reweight": "none"},
        {"weights": {"batch-7": 0.5, "earlier": 0.1}},
        {"domains": {"by": "clusters", "clusters": {"most": 4}}, "weights": {"old/law-court": 0.2}},
        {"reweight": {"kind": "skill-it", "graph": {"new": {"anchor": 0}}}},
    ],
)
def test_what_may_work_is_not_refused(asked: Json) -> None:
    settings = StrategySettings.model_validate({"name": "data-mixing", "mixing": {"kind": "weighted", **asked}})
    choice.check(settings, TrainingSettings(), "causal-lm")


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ({"hidden": 512}, "5245440 parameters beside its embeddings, at most 300000"),
        ({"hidden": 60}, "a multiple of 8"),
    ],
)
def test_tiny_runs_of_an_impossible_size_are_refused_at_once(size: Json, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RegMixSettings.model_validate({"kind": "regmix", **size})


def test_tiny_runs_have_the_size_that_was_asked_for() -> None:
    asked = {"kind": "regmix", "hidden": 256, "layers": 3, "max_parameters": 5_000_000}
    made = plan(measured(), name="data-mixing", mixing={"kind": "weighted", "reweight": asked})
    (found,) = {job.proxy for job in made.jobs.values() if isinstance(job, ProxyTemplate)}
    assert (found.hidden, found.layers, found.max_parameters) == (256, 3, 5_000_000)
    usual = plan(measured(), name="data-mixing", mixing={"kind": "weighted", "reweight": "regmix"}).jobs["proxy-1"]
    assert isinstance(usual, ProxyTemplate)
    assert (usual.proxy.hidden, usual.proxy.layers) == (ProxySettings().hidden, ProxySettings().layers)


def test_a_refused_mixture_is_not_planned_again() -> None:
    first = plan(measured(), name="data-mixing", mixing={"kind": "weighted", "weights": "prior"})
    refused = {"strategy": "data-mixing", **{name: one.value for name, one in first.values.items()}}
    second = plan(measured(refused=(refused,)), name="data-mixing", mixing={"kind": "weighted", "weights": "prior"})
    assert second.values["learning_rate"].value == first.values["learning_rate"].value / 2


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"batch-3": 0.05, "anchor": 0.55, "batch-2": 0.3, "earlier": 0.1}, {"batch-3": 0.05, "anchor": 0.55}),
        ({"anchor": 0}, {"anchor": 0.0, "batch-3": 1 / 3}),
        ({"anchor": 0, "batch-9": 0.5}, {"anchor": 0.0, "batch-3": 1 / 3}),
        ({}, {"anchor": 0.25, "batch-3": 0.25}),
    ],
)
def test_weights_may_leave_domains_out_and_miss_one_by_a_rounding(
    asked: dict[str, float], expected: dict[str, float]
) -> None:
    found = weights(mixing(weights=asked))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test_after_a_refusal_regmix_trains_otherwise() -> None:
    asked = {"kind": "weighted", "reweight": "regmix"}
    first = plan(measured(), name="data-mixing", mixing=asked)
    refused = ({"strategy": "data-mixing", **{name: one.value for name, one in first.values.items()}},)
    second = plan(measured(refused=refused), name="data-mixing", mixing=asked)
    assert second.values["learning_rate"].value == first.values["learning_rate"].value / 2
    assert second.values["replay"].value == first.values["replay"].value
    assert first.values["weights"].origin == "weights: prior"


def test_what_jobs_before_find_stays_within_limits_though_nobody_looks_at_losses() -> None:
    limits = {"floor": 0.5, "epochs_max": 1}
    made = plan(signals(), name="data-mixing", mixing={"kind": "weighted", "reweight": "doremi", "limits": limits})
    found = weighted_mixing(train_job(made))
    assert found.limits is not None
    assert found.limits.epochs_max == 1
    assert made.values["reweight"].origin == "settings"


def test_one_domain_alone_is_not_weighed_and_the_plan_says_so() -> None:
    alone = measured(old=(), anchor=None, pools=())
    made = plan(alone, name="data-mixing", mixing={"kind": "weighted", "reweight": "doremi"})
    assert list(made.jobs) == ["train"]
    assert "one domain alone" in made.values["reweight"].origin
    assert "re-weighted" not in made.reason


def test_doremi_refuses_a_domain_that_it_could_not_weigh() -> None:
    asked = {"kind": "weighted", "weights": {"anchor": 0.0}, "reweight": "doremi"}
    with pytest.raises(BadPlan, match="first weight is 0"):
        plan(measured(), name="data-mixing", mixing=asked)
    with pytest.raises(BadPlan, match="no bank takes adapters from"):
        plan(measured(), name="mos", start="base", mixing={**asked, "weights": "prior"})
