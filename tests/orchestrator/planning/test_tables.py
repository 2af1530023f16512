"""What `--plan` prints of GPUs, and that the figures of docs/cluster.md are the plan's."""

from orchestrator.planning.devices import GPUS
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.planning.work import Work
from search_spaces import load
from tests.support.builders import sweep_settings
from tests.support.paths import ROOT
from tests.support.processes import assert_refused, run

CLUSTER = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
EARLY = (100 * 1000 + 33 * 2000 + 11 * 6000 + 4 * 1000) / 1_000_000
"""Share of a search's iterations that is left if ASHA stops all it can: the sum of docs/cluster.md."""


def hours(plan: Plan, *stages: str) -> tuple[float, float]:
    """Return the low and the high estimate of stages on an A10G."""
    low_s, high_s = plan.gpu_s(sum((plan.work.stages[stage] for stage in stages), Work()), GPUS["A10G"])
    return low_s / 3600, high_s / 3600


def text(amounts: tuple[float, float], factor: float = 1.0) -> str:
    low, high = amounts
    return f"{factor * low:,.0f} – {factor * high:,.0f}"


def test_the_figures_of_the_cluster_page_are_the_plans() -> None:
    plan = make_plan(sweep_settings(space=load("ti_ranges")))
    for label, stages in (
        ("100 experts of 44 epochs", ["experts"]),
        ("100 trials of 10,000 iterations, none stopped early", ["search"]),
        ("finals", ["finals"]),
        ("together", list(plan.work.stages)),
    ):
        assert f"| {label} | {text(hours(plan, *stages))} |" in CLUSTER
    whole, search = hours(plan, *plan.work.stages), hours(plan, "search")
    early = (whole[0] - (1 - EARLY) * search[0], whole[1] - (1 - EARLY) * search[1])
    for label, each, price in (
        ("small GPU nodes, spot", 1.0, 0.5),
        ("head, while the sweep runs, with 8 GPUs", 1 / 8, 0.2),
    ):
        (row,) = [line for line in CLUSTER.splitlines() if line.startswith(f"| {label}")]
        assert f"{text(whole, each)} or {text(early, each)} hours" in row
        assert row.endswith(f"| {text(whole, each * price)} | {text(early, each * price)} |")


def test_a_gpu_is_planned_by_its_name_and_refused_where_it_cannot_be() -> None:
    space = ("orchestrator.sweep", "--space", "digits")
    planned = run(*space, "--plan", "--gpu", "rtx4090")
    assert planned.returncode == 0, planned.stderr
    assert "one RTX 4090" in planned.stdout and "H200" not in planned.stdout and "No GPU was measured" in planned.stdout
    every = run(*space, "--plan")
    assert all(name in every.stdout for name in GPUS)
    assert_refused(run(*space, "--plan", "--gpu", "A1000"), "no GPU is known as 'A1000'; known are V100, A100")
    assert_refused(run(*space, "--gpu", "L4"), "--gpu names the GPU of a plan; add --plan")
    tf32 = run(*space, "--plan", "--set", "precision=tf32")
    assert tf32.returncode == 0 and "has no tf32" in tf32.stdout
    assert_refused(run(*space, "--plan", "--set", "precision=tf32", "--gpu", "V100"), "it has no tf32; set precision")
