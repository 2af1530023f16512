"""Why early is easy, label inconsistency, accuracy by range: words and figures by hand, and measured through Ray."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchestrator.cluster.connection import connected
from orchestrator.cluster.resources import Resources
from orchestrator.reporting.sections import ranges as range_figures
from orchestrator.reporting.sections.diagnostics import diagnostics_section, draw_diagnostics, label_section
from orchestrator.reporting.sections.ranges import LEAST, MOST_BINS, draw_ranges, range_section
from orchestrator.results.trials import TrialRecord
from orchestrator.stages.diagnostics import EXPERTS, _series
from orchestrator.stages.diagnostics import measure_diagnostics as measure
from orchestrator.stages.inputs import Inputs, prepare_inputs
from orchestrator.state.settings import SweepSettings
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.console import make_console
from orchestrator.terminal.steps import Steps
from search_spaces import load
from tests.support.builders import sweep_settings, trial_record
from tests.support.losses import patience
from trainables.distillation.diagnostics import matching_losses, parameter_distances
from trainables.distillation.trajectory import Distiller
from trainables.seeding import generator, seed_of
from trainables.storage.checkpoints import checkpoint_place, write_checkpoint
from trainables.workers.workbench import Workbench

Rows = Sequence[Sequence[float]]
STEPS = [[4.0, 4.2], [2.0, 2.1], [1.0, 1.1], [1.0, 1.2], [0.5, 0.6], [0.5, 0.4]]
BEFORE = [[0.5, 0.6], [0.6, 0.7], [0.9, 0.8], [1.2, 1.3], [2.0, 2.2]]
WINNER = [[0.1, 0.2], [0.2, 0.3], [0.85, 0.75], [1.1, 1.4], [2.5, 2.6]]


def entry(name: str, rows: Rows, **changed: Any) -> dict[str, Any]:
    return {
        "name": name, "trial": "trial-003", "initialization": "correct", "alpha": 0.05, "N": 20, "M": 2, "T_minus": 0,
        "T_plus": 2, "last_start": 1, "start_epochs": list(range(len(rows))), "experts": len(rows[0]), **_series(rows),
        **changed,
    }  # fmt: skip


def facts(steps: Rows = STEPS, before: Rows = BEFORE, winner: Rows = WINNER, **changed: Any) -> dict[str, Any]:
    """What was measured, with a distance from the start that adds up."""
    totals = [[sum(row[expert] for row in steps[: epoch + 1]) for expert in range(len(steps[0]))] for epoch in range(6)]
    return {
        "version": 1, "experts": len(steps[0]), "epochs": 6, "step_length": _series(steps), "distance": _series(totals),
        "losses": [entry("before", before, **changed), entry("winner", winner, **changed)],
    }  # fmt: skip


def text(told: dict[str, Any]) -> str:
    return diagnostics_section(told)


def colours(path: Path) -> int:
    with Image.open(path) as picture:
        return len(picture.convert("RGB").getcolors(maxcolors=1 << 24) or [])


class TestReading:
    def test_experts_that_slow_down_and_a_loss_that_rises(self) -> None:
        said = text(facts())
        # Of six epochs two are a third: (4 + 4.2 + 2 + 2.1) / 4 and (0.5 + 0.6 + 0.5 + 0.4) / 4. The mean distance
        # from the start is 4.1, 6.15, 7.2, 8.3, 8.85, 9.3, half of which is passed in the second.
        assert "by 3.08 in the first 2 epochs and by 0.5 in the last 2: early epochs go further." in said
        assert "Half of the final distance from the start, 9.3, is passed in epoch 2 of 6." in said
        assert "leaves a loss of 0.55 from start epochs 0 and of 2.1 from 4: before anything is learned, early" in said
        # At epoch 3 one expert gains and the other loses; at 4 both lose.
        assert "than the real images, whichever the expert, at 0–2, and a higher one at 4." in said
        assert "Matched at start epochs 0–1, the best trial's set (trial-003)" in said

    def test_the_opposite(self) -> None:
        said = text(facts(steps=STEPS[::-1], before=BEFORE[::-1], winner=BEFORE[::-1]))
        assert "early epochs do not go further here, but less far" in said
        assert "early is not easier at this N·α, but harder" in said
        assert "at none, and a higher one at none" in said

    @pytest.mark.parametrize(
        ("steps", "before"),
        [
            ([[1.0, 1.2, 1.1]] * 6, [[0.5, 0.9, 0.7]] * 5),
            # All experts agree, on next to nothing.
            ([[1.001] * 3, *[[1.0] * 3] * 5], [*[[0.5] * 3] * 4, [0.5001] * 3]),
            # One expert says so, and another the contrary.
            ([[4.0, 1.0], *[[2.0, 2.0]] * 4, [1.0, 4.0]], [[0.2, 2.0], *[[1.0, 1.0]] * 3, [2.0, 0.2]]),
            # One alone has no interval, whatever it says.
            ([row[:1] for row in STEPS], [row[:1] for row in BEFORE]),
        ],
        ids=["alike", "a rounding", "contrary", "one"],
    )
    def test_what_the_data_do_not_show_is_said_plainly(self, steps: Rows, before: Rows) -> None:
        said = text(facts(steps=steps, before=before, winner=before))
        assert "these experts do not show that early epochs go further" in said
        assert "these data do not show that early is easier" in said

    def test_a_set_on_which_training_diverges_is_not_averaged(self) -> None:
        diverging = [*BEFORE[:4], [2.0, math.inf]]
        told = facts(before=diverging)
        assert told["losses"][0]["mean"][4] is None and told["losses"][0]["values"][4] == [2.0, None]
        said = text(told)
        assert "diverges at some start epochs, so early and late cannot be compared" in said
        assert "| 0–1 | 0.6 | diverges |" in said
        assert "and a higher one at 4." in said  # the expert that is left
        json.dumps(told, allow_nan=False)

    def test_the_table_has_means_in_the_range_and_elsewhere(self) -> None:
        rows = [line for line in text(facts()).splitlines() if line.startswith("| ")]
        assert rows[1:] == [
            "| before: real images | trial-003 | 20 | 2 | 0.05 | 0–1 | 0.6 | 1.4 |",
            "| after: best trial | trial-003 | 20 | 2 | 0.05 | 0–1 | 0.2 | 1.53 |",
        ]
        everywhere = text(facts(last_start=4, T_plus=5))
        assert "| 0–4 | 1.08 | – |" in everywhere

    def test_a_reference_of_its_own_is_in_the_table(self) -> None:
        told = facts()
        told["losses"].append(entry("paper_setting", WINNER[:4], trial="trial-000", M=3))
        assert "| after: reference setting (trial 0) | trial-000 | 20 | 3 |" in text(told)

    def test_noise_is_not_called_real(self) -> None:
        said = text(facts(initialization="noise"))
        assert "before: noise" in said and "lower loss than the noise" in said and "real images" not in said

    def test_start_epochs_that_were_skipped_do_not_part_neighbours(self) -> None:
        said = text(facts(start_epochs=[0, 3, 6, 9, 12], last_start=5))
        assert "at 0–6, and a higher one at 12." in said


class TestPicture:
    @pytest.mark.parametrize(
        "changed",
        [
            {},
            {"steps": [row[:1] for row in STEPS], "before": [[1.0]] * 5, "winner": [[0.5]] * 5},
            {"before": [*BEFORE[:4], [math.nan, math.inf]]},
            {"before": [[math.inf, math.inf]] * 5, "winner": [[math.inf, math.inf]] * 5},
            {"before": [*BEFORE[:4], [1e30, 1e20]]},
        ],
        ids=["usual", "one expert", "a gap", "nothing finite", "wide"],
    )
    def test_is_drawn_of_whatever_was_measured(self, tmp_path: Path, changed: dict[str, Rows]) -> None:
        draw_diagnostics(tmp_path / "a.png", facts(**changed))
        assert colours(tmp_path / "a.png") > 8


pytestmark = pytest.mark.usefixtures("one_thread")


def settings(tmp_path: Path) -> SweepSettings:
    small = {
        "N": 3, "M": 1, "T_minus": 0, "T_width": 1, "T_growth": 1, "horizon_epochs": 30, "expert_count": 5,
        "net_depth": 1, "net_width": 4, "lr_alpha": 1e-4, "lr_pixel": 10.0,
    }  # fmt: skip
    return sweep_settings(space=load("digits").override(small), seed=3, workdir=Workdir(tmp_path), quiet=True)


def record(number: int, point: dict[str, Any], **changed: Any) -> TrialRecord:
    return trial_record(number, **{"settings": point, "rungs": {10: 0.5}, **changed})


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inputs, TrialRecord, Distiller]:
    """A sweep after its search: five experts on random straight lines, and a trial with a checkpoint."""
    inputs = prepare_inputs(settings(tmp_path_factory.mktemp("runs")), make_console(quiet=True))
    store, network, written = inputs.store, inputs.network, {}
    for expert in range(5):
        draws = generator("diagnostics", "expert", expert)
        start, end = network.initial(draws), network.initial(draws)
        line = [start + 0.03 * epoch * (end - start) for epoch in range(31)]
        written[expert] = store.write(expert, line, [1.0] * 30)
    store.record(written)
    best = record(4, inputs.settings.space.resolve(inputs.settings.space.first()))
    work = inputs.trial_work(Resources(cpus=1, gpus=0, gpus_per_trial=0), compiled=False)
    distiller = Workbench(work).distiller(best.settings)
    for _ in range(3):
        distiller.step()
    write_checkpoint(checkpoint_place(work.checkpoints, best.number), {**distiller.state_dict(), "more": 1})
    assert isinstance(distiller, Distiller)
    return inputs, best, distiller


@pytest.fixture(scope="module")
def measured(sweep: tuple[Inputs, TrialRecord, Distiller]) -> dict[str, Any]:
    inputs, best, _ = sweep
    # A reference that failed at settings with which no distillation can be made, and so has no checkpoint.
    reference = record(0, {**best.settings, "N": 0}, status="failed", rungs={})
    followed: list[Steps] = []
    with connected("local", None) as resources:
        content = measure(
            inputs, resources, best, reference, make_console(quiet=True), patience(), follow=followed.append
        )
    (steps,) = followed
    assert steps.done == steps.total == 4 and steps.seconds_left == 0.0
    return content


class TestMeasured:
    def test_sets_are_those_of_the_best_trial_before_and_after(self, measured: Any, sweep: Any) -> None:
        inputs, best, distiller = sweep
        assert [losses["name"] for losses in measured["losses"]] == ["before", "winner"]
        before, after = measured["losses"]
        seed = seed_of(3, "diagnostics")
        trajectories = inputs.store.open(range(EXPERTS), 30)
        starts = after["start_epochs"]
        assert starts == before["start_epochs"] and len(starts) == 25 and (starts[0], starts[-1]) == (0, 29)
        assert sorted(set(starts)) == starts
        assert after["alpha"] == distiller.alpha != before["alpha"] == best.settings["alpha_init"]
        expected = matching_losses(distiller, trajectories, starts, seed)
        torch.testing.assert_close(torch.tensor(after["values"]).double(), expected, rtol=1e-5, atol=0.0)
        work = inputs.trial_work(Resources(cpus=1, gpus=0, gpus_per_trial=0), compiled=False)
        first = Workbench(work).distiller(best.settings)
        assert isinstance(first, Distiller)
        expected = matching_losses(first, trajectories, starts, seed)
        torch.testing.assert_close(torch.tensor(before["values"]).double(), expected, rtol=1e-5, atol=0.0)
        assert before["values"] != after["values"]

    def test_experts_on_straight_lines_go_as_far_each_epoch(self, measured: Any, sweep: Any) -> None:
        inputs, _, _ = sweep
        steps, totals = parameter_distances(inputs.store.open(range(EXPERTS), 30), 30)
        assert measured["experts"] == EXPERTS and measured["epochs"] == 30
        assert measured["step_length"]["values"] == steps.tolist()
        assert measured["distance"]["values"] == totals.tolist()
        mean = measured["step_length"]["mean"]
        assert mean == pytest.approx([mean[0]] * 30, rel=1e-4)
        assert measured["distance"]["mean"] == pytest.approx([mean[0] * epoch for epoch in range(1, 31)], rel=1e-4)
        assert "these experts do not show that early epochs go further" in text(measured)

    def test_the_range_is_the_trials(self, measured: Any) -> None:
        winner = measured["losses"][1]
        assert [winner[key] for key in ("N", "M", "T_minus", "T_plus", "last_start", "experts")] == [3, 1, 0, 2, 1, 4]
        assert "Matched at start epochs 0–1" in text(measured)

    def test_it_is_json_and_can_be_drawn_from_it(self, measured: Any, tmp_path: Path) -> None:
        again = json.loads(json.dumps(measured, allow_nan=False))
        assert again == measured
        draw_diagnostics(tmp_path / "a.png", again)
        assert colours(tmp_path / "a.png") > 8


class TestLabels:
    def soft(self, number: int, share: float, accuracy: float) -> TrialRecord:
        return record(number, {}, rungs={10: accuracy}, measures={"label_inconsistency": share})

    def test_hard_labels_have_no_part(self) -> None:
        assert label_section([]) == "" == label_section([record(0, {}, measures={"matching_loss": 0.5})])

    def test_soft_label_trials_best_first(self) -> None:
        parts = label_section([self.soft(0, 0.25, 0.5), record(1, {}), self.soft(2, 0.0, 0.75)]).split("\n\n")
        assert parts[-1].splitlines()[2:] == ["| trial-002 | 10 | 0.0% | 0.750 |", "| trial-000 | 10 | 25.0% | 0.500 |"]

    def test_at_most_ten_are_listed_and_the_rest_counted(self) -> None:
        parts = label_section([self.soft(number, 0.1, number / 20) for number in range(12)]).split("\n\n")
        rows = parts[-1].splitlines()[2:]
        assert len(rows) == 10 and rows[0].startswith("| trial-011") and rows[-1].startswith("| trial-002")
        assert "The best 10 of 12." in parts[1]


class TestRanges:
    SPACE = load("digits")

    def trials(self, *points: tuple[int, int, float]) -> list[TrialRecord]:
        """Trials by T_minus, T_plus and accuracy at the last rung of all; earlier and later ones mislead."""
        return [
            record(
                number,
                {"T_minus": first, "T_plus": last},
                rungs={5: 0.0, 25: accuracy, **({50: 9.0} if number else {})},
            )
            for number, (first, last, accuracy) in enumerate(points)
        ]

    def test_bins_by_hand(self, tmp_path: Path) -> None:
        early = [(0, 6, 0.8), (0, 8, 0.9), (2, 6, 1.0)]
        late = [(14, 18, 0.1), (14, 20, 0.3), (12, 20, 0.2)]
        records = self.trials(late[0], early[0], (6, 10, 0.5), *late[1:], *early[1:], (6, 12, 0.6), (8, 12, 0.4))
        parts = range_section(self.SPACE, records).split("\n\n")
        assert "at iteration 25," in parts[1] and "an observation, not an experiment" in parts[-1]
        assert parts[-2].splitlines()[2:] == [
            "| 3–4 | 3 | 0.900 ± 0.100 | 1.000 |", "| 8–10 | 3 | 0.500 ± 0.100 | 0.600 |",
            "| 16–17 | 3 | 0.200 ± 0.100 | 0.300 |",
        ]  # fmt: skip
        draw_ranges(tmp_path / "ranges.png", self.SPACE, records)
        assert colours(tmp_path / "ranges.png") > 8

    def test_trials_that_came_to_no_rung_are_left_out(self) -> None:
        records = self.trials(*[(place, place + 2, 0.5) for place in range(9)])
        failed = record(9, {"T_minus": 0, "T_plus": 1}, status="failed", rungs={})
        assert range_section(self.SPACE, [*records, failed]) == range_section(self.SPACE, records) != ""

    @pytest.mark.parametrize(
        ("space", "points"),
        [
            ("digits", []),
            ("digits", [(place, place + 2, 0.5) for place in range(8)]),  # two bins and two over
            ("digits", [(0, 6, 0.5)] * 20),  # one range
            ("digits_range_study", [(place, place + 2, 0.5) for place in range(9)]),  # its own figure shows it
        ],
        ids=["none", "few", "alike", "study"],
    )
    def test_where_there_is_nothing_to_say_there_is_nothing(self, space: str, points: Any, tmp_path: Path) -> None:
        records = self.trials(*points)
        assert range_section(load(space), records) == ""
        draw_ranges(tmp_path / "ranges.png", load(space), records)
        assert not (tmp_path / "ranges.png").exists()

    def test_a_space_that_keeps_the_range_has_no_part(self) -> None:
        records = self.trials(*[(place, place + 2, 0.5) for place in range(9)])
        kept = self.SPACE.override({"T_minus": 0, "T_width": 6, "T_growth": 2})
        assert range_section(kept, records) == "" != range_section(self.SPACE, records)

    def test_trials_that_share_no_iteration_do_not_compare(self) -> None:
        records = self.trials(*[(place, place + 2, 0.5) for place in range(9)])
        other = record(9, {"T_minus": 0, "T_plus": 1}, rungs={30: 0.5})
        assert range_section(self.SPACE, [*records, other]) == ""

    @given(st.lists(st.integers(0, 12), max_size=60))
    def test_bins_hold_every_trial_once_and_never_part_equal_ranges(self, places: list[int]) -> None:
        _, bins = range_figures._binned(self.SPACE, self.trials(*[(place, place + 2, 0.5) for place in places]))
        if not bins:
            return
        assert [middle for group in bins for middle in group.middles] == sorted(place + 1.0 for place in places)
        assert 3 <= len(bins) <= MOST_BINS
        assert all(group.accuracies["n"] == len(group.middles) >= LEAST for group in bins)
        assert all(left.middles[-1] < right.middles[0] for left, right in pairwise(bins))
