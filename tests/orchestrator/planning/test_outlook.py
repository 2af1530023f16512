"""What is ahead of a running sweep: ratios that add up to the plan, whatever is measured."""

import pytest

from orchestrator.planning.outlook import Outlook
from orchestrator.planning.plan import make_plan
from search_spaces import load
from tests.support.builders import sweep_settings


@pytest.mark.parametrize("compiled", [False, True])
def test_every_stage_sees_the_same_end(compiled: bool) -> None:
    """If all work takes the plan's time, every stage says of the later ones what the plan says."""
    settings = sweep_settings(space=load("digits"))
    plan = make_plan(settings)
    work, outlook = plan.work, Outlook(plan, compiled)
    distilled_s = plan.core_s(work.search + work.repeats, compiled=compiled)
    measured_s = plan.core_s(work.networks + work.diagnostics)
    epoch_s = plan.core_s(work.experts) / plan.expert_epochs
    for epochs in (plan.expert_epochs, plan.expert_epochs // 2):
        assert outlook.after_experts(epochs) * epochs * epoch_s == pytest.approx(distilled_s + measured_s)
    iterations = settings.fixed["iterations"]
    iteration_s = plan.core_s(work.trial, compiled=compiled) / iterations
    assert outlook.after_distillations(iterations) * iteration_s == pytest.approx(measured_s)
    assert outlook.after_networks() * plan.core_s(work.networks) == pytest.approx(plan.core_s(work.diagnostics))


def test_trial_0_is_planned_on_the_workers_device() -> None:
    plan = make_plan(sweep_settings(space=load("digits")))
    outlook = Outlook(plan, compiled=False)
    core = outlook.trial((), 0.0)
    assert core is not None and core.device == "a CPU core"
    assert core.low_s == core.high_s == plan.core_s(plan.work.first)
    whole, half = outlook.trial({"A10G"}, 1.0), outlook.trial({"A10G"}, 0.5)
    assert whole is not None and half is not None
    assert (half.low_s, half.high_s) == (2 * whole.low_s, 2 * whole.high_s)
    assert outlook.trial({"A10G", "L4"}, 1.0) is None and outlook.trial({"T4"}, 1.0) is None
