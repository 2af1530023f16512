"""The face that Ray Tune sees, without a cluster: what a rung reports, what repeats share, what a checkpoint holds."""

import dataclasses
import errno
import io
import itertools
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from search_spaces.entry import Kind
from tests.support.experts import expert_identity
from tests.support.gpu_memory import GPU_MEMORY_ERRORS
from tests.support.implementations import own
from tests.support.settings import distillation_config
from trainables.config.protocol import Protocol
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.data.pictures import draw_set
from trainables.data.real_images import real_images
from trainables.distillation.diagnostics import matching_losses
from trainables.distillation.distribution import DistributionMatching
from trainables.distillation.gradient import GradientMatching
from trainables.distillation.initialization import initial_images
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.kept_graphs import kept_bytes
from trainables.distillation.matching import Matcher, MatchingGradient
from trainables.distillation.micro_batches import CPU_GRAPH_FACTOR, bytes_per_image
from trainables.distillation.soft_labels import label_inconsistency, soft_labels
from trainables.distillation.starting_alpha import AlphaCurve, find_alpha
from trainables.distillation.trajectory import Distiller
from trainables.errors import ConfigError
from trainables.experts.store import Trajectories, TrajectoryStore
from trainables.memory_errors import first_line
from trainables.networks.convnet import ConvNet
from trainables.seeding import seed_of
from trainables.storage.checkpoints import checkpoint_place, read_checkpoint
from trainables.workers.diagnostics import losses_of_trial
from trainables.workers.distilled_set import distil_set
from trainables.workers.rung import RungPictures
from trainables.workers.trial import DistillationTrial
from trainables.workers.workbench import TrialWork, Workbench

SETTINGS = dataclasses.asdict(
    distillation_config(
        ipc=1,
        N=4,
        M=2,
        T_minus=0,
        T=2,
        T_plus=3,
        interval=2,
        lr_pixel=50.0,
        lr_alpha=1e-3,
        alpha_init=0.05,
        batch_syn=10,
        max_matching_loss=10.0,
        iterations=4,
    )
)
SOFT = {"label_mode": "soft", "lr_label": 20.0}
SEED, EPOCHS = 7, 6
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def work(
    digits_path: Path, small_network: ConvNet, snapshots: list[list[Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> TrialWork:
    root = tmp_path_factory.mktemp("experts")
    store = TrajectoryStore(root, expert_identity(small_network, ("crop",)))
    store.record({number: store.write(number, each, [1.0] * EPOCHS) for number, each in enumerate(snapshots)})
    return TrialWork(
        dataset=digits_path,
        store=store,
        methods=own(Kind.METHOD),
        checkpoints="",
        settings=SETTINGS,
        experts=3,
        epochs=EPOCHS,
        protocol=Protocol(epochs=4, drop_after_epochs=2, learning_rate=0.05),
        validation_networks=1,
        validation_every_iterations=2,
        seed=SEED,
        device="cpu",
        compiled=False,
        memory_budget_bytes=None,
        device_share=1.0,
    )


@pytest.fixture
def trial(
    work: TrialWork, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., DistillationTrial]:
    """A trial as Tune makes it, less the object store that brings `work` to it; its checkpoints are in `tmp_path`."""

    class Bound(DistillationTrial):
        def _setup_logdir(self) -> None:  # Tune's own makes a folder in the home directory
            self._logdir = str(tmp_path_factory.mktemp("logs"))  # type: ignore[assignment]

        def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
            super().setup(config, dataclasses.replace(work, checkpoints=str(tmp_path)))

    numbers = itertools.count()
    return lambda **changed: Bound({"trial_number": next(numbers), **changed})


@pytest.fixture
def alone(
    work: TrialWork, small_digits: ImageDataset, small_network: ConvNet, trajectories: Trajectories
) -> Callable[..., Distiller]:
    """The distillation that a trial is to run, put together by hand."""

    def build(seed: int = SEED, **changed: Any) -> Distiller:
        config = distillation_config(**{**SETTINGS, **changed})
        experts: dict[str, Any] = {
            "network": small_network,
            "trajectories": trajectories,
            "epoch": EPOCHS,
            "device": CPU,
        }
        images = initial_images(config.initialization, small_digits, config.ipc, seed, **experts)
        labels = default_order_labels(config.ipc, 10)
        if config.label_mode == "soft":
            labels = soft_labels(config.initialization, images, **experts)
        matcher = Matcher(InnerStep(small_network), work.augmentation, method=config.gradient)
        return Distiller(config, matcher=matcher, trajectories=trajectories, images=images, labels=labels, seed=seed)

    return build


def assert_same(state: dict[str, Any], expected: dict[str, Any]) -> None:
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(state[name]), torch.as_tensor(value)), name


def state_of(trial: Any) -> dict[str, Any]:
    state: dict[str, Any] = trial._distiller.state_dict()
    return state


def test_a_small_memory_budget_changes_the_rounding_alone(
    trial: Callable[..., DistillationTrial], work: TrialWork
) -> None:
    plenty = trial()
    object.__setattr__(work, "memory_budget_bytes", 3.5 * CPU_GRAPH_FACTOR * bytes_per_image(work.network))
    tight = trial()
    object.__setattr__(work, "memory_budget_bytes", None)
    assert [run.step()["micro_batch_images"] for run in (plenty, tight)] == [10, 3]
    one, other = (state_of(run)["images"] for run in (plenty, tight))
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_kept_graphs_change_no_bit(trial: Callable[..., DistillationTrial], work: TrialWork) -> None:
    images = 10.2 * CPU_GRAPH_FACTOR * bytes_per_image(work.network)
    budget = images + 2 * kept_bytes(work.network, 10, 10, "fp32")
    runs: dict[float | None, DistillationTrial] = {None: trial()}
    for memory_budget_bytes in (budget, images):
        object.__setattr__(work, "memory_budget_bytes", memory_budget_bytes)
        runs[memory_budget_bytes] = trial()
    object.__setattr__(work, "memory_budget_bytes", None)
    matchers = [run._distiller.matcher for run in runs.values()]  # type: ignore[union-attr]
    assert [matcher.kept_steps for matcher in matchers] == [SETTINGS["N"], 2, 0]
    results = [run.step() for run in runs.values()]
    for run, result in zip(runs.values(), results, strict=True):
        assert_same(state_of(run), state_of(runs[None]))
        assert same_result(result, results[0])


def test_what_ran_out_of_memory_keeps_no_graphs(trial: Callable[..., DistillationTrial]) -> None:
    run = trial()
    run._bench.limit(run._distiller, 5)
    matcher = run._distiller.matcher  # type: ignore[union-attr]
    assert (matcher.kept_steps, matcher.step.micro_batch) == (0, 5)


MODES = {
    "hard": {},
    "soft": SOFT,
    "real and truncated": {**SOFT, "initialization": "real", "gradient": "truncated"},
    "unrolled": {"gradient": "unrolled"},
    "noise and average": {"initialization": "noise", "ema_decay": 0.5},
}


def same_result(one: dict[str, Any], other: dict[str, Any]) -> bool:
    clocks = {"seconds_per_iteration": 0, "trial_seconds": 0, "resident_memory_mib": 0}
    return {**one, **clocks} == {**other, **clocks}


@pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())
class TestRung:
    def test_is_the_distillation_of_its_settings(
        self, trial: Callable[..., DistillationTrial], alone: Callable[..., Distiller], options: dict[str, Any]
    ) -> None:
        running, distiller = trial(**options), alone(**options)
        done = [distiller.step() for _ in range(2)]
        result = running.step()
        assert_same(state_of(running), distiller.state_dict())
        assert result["matching_loss"] == pytest.approx(sum(iteration.loss for iteration in done) / 2, rel=1e-12)
        assert (result["alpha"], result["image_displacement"]) == (distiller.alpha, distiller.displacement)
        assert (result["iteration"], result["upper_bound_epochs"], result["done"]) == (2, 2, False)
        assert (result["skip_rate"], result["not_finite_rate"], result["floor_rate"]) == (0, 0, 0)
        assert 0 <= result["validation_accuracy"] <= 1
        if "label_mode" in options:
            assert result["label_inconsistency"] == label_inconsistency(distiller.labels, 1)
        else:
            assert "label_inconsistency" not in result
        assert running.step()["done"]

    def test_resumes_from_its_checkpoint_bit_for_bit(
        self, trial: Callable[..., DistillationTrial], options: dict[str, Any]
    ) -> None:
        first, undisturbed = trial(**options), trial(**options)
        reported = first.step()
        resumed = trial(**options, trial_number=0)
        assert resumed.step() == reported  # again: nobody knows whether it arrived
        assert same_result(resumed.step(), [undisturbed.step() for _ in range(2)][1])
        assert_same(state_of(resumed), state_of(undisturbed))

    def test_resumes_within_a_rung_bit_for_bit(
        self, trial: Callable[..., DistillationTrial], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, undisturbed = trial(**options), trial(**options)
        first.step()
        monkeypatch.setattr("trainables.storage.writing_pace.WRITING_SHARE", 1e9)
        with pytest.MonkeyPatch.context() as patch:  # a process that dies as soon as it comes to validate
            patch.setattr(first._bench, "validate", lambda *_: sys.exit("killed"))
            with pytest.raises(SystemExit):
                first.step()
        resumed = trial(**options, trial_number=0)
        assert resumed._distiller.iteration == 4
        assert same_result(resumed.step(), [undisturbed.step() for _ in range(2)][1])
        assert_same(state_of(resumed), state_of(undisturbed))


def test_a_trial_does_not_resume_from_the_checkpoint_of_other_settings(
    trial: Callable[..., DistillationTrial], work: TrialWork
) -> None:
    trial(lr_pixel=40.0).step()
    assert trial(trial_number=0)._distiller.iteration == 0
    assert trial(trial_number=0, lr_pixel=40.0)._distiller.iteration == 2
    object.__setattr__(work, "settings", {**SETTINGS, "lr_alpha": 1e-4})
    other = trial(trial_number=0, lr_pixel=40.0)
    object.__setattr__(work, "settings", SETTINGS)
    assert other._distiller.iteration == 0


class TestRepeats:
    def test_start_and_draw_by_a_seed_of_their_own(
        self, trial: Callable[..., DistillationTrial], alone: Callable[..., Distiller]
    ) -> None:
        running = trial(repeat=2)
        running.step()
        distiller = alone(seed=seed_of(SEED, "repeat", 2))
        for _ in range(2):
            distiller.step()
        assert_same(state_of(running), distiller.state_dict())

    def test_in_one_process_do_not_share_initial_images(self, trial: Callable[..., DistillationTrial]) -> None:
        running, states = trial(repeat=0), []
        for number, repeat in enumerate([0, 1, 0]):
            assert running.reset_config({"repeat": repeat, "trial_number": number})
            states.append(state_of(running))
        assert not torch.equal(states[0]["images"], states[1]["images"])
        assert_same(states[2], states[0])
        assert_same(state_of(trial()), states[0])


class TestReports:
    def test_the_pictures_of_what_is_validated_also_when_it_is_reported_again(
        self, trial: Callable[..., DistillationTrial], small_digits: ImageDataset
    ) -> None:
        running = trial(ema_decay=0.5)
        pictures = RungPictures.take_from(running.step())
        picture = draw_set(small_digits.displayable(state_of(running)["ema"]), small_digits.class_names)
        assert pictures is not None
        assert Image.open(io.BytesIO(pictures.png)).tobytes() == picture.tobytes()
        assert max(Image.open(io.BytesIO(pictures.webp)).size) == 256
        assert RungPictures.take_from(trial(ema_decay=0.5, trial_number=0).step()) == pictures

    def test_the_share_of_iterations_whose_alpha_was_floored(
        self, trial: Callable[..., DistillationTrial], alone: Callable[..., Distiller]
    ) -> None:
        options = {"alpha_init": 0.5, "alpha_floor": 0.499, "lr_alpha": 1e-2, "lr_pixel": 1e-9}
        distiller = alone(**options)
        floored = [distiller.step().floored for _ in range(2)]
        assert any(floored)
        result = trial(**options).step()
        assert result["floor_rate"] == sum(floored) / 2
        assert result["alpha"] >= 0.499

    def test_skips_apart_from_what_is_not_finite(self, trial: Callable[..., DistillationTrial]) -> None:
        running = trial()
        limited = trial(max_matching_loss=1e-6)
        running.step()
        limited._distiller.load_state_dict(state_of(running))  # its first updates were accepted
        result = limited.step()
        assert (result["skip_rate"], result["not_finite_rate"]) == (1, 0)

    def test_a_rung_without_a_finite_update_ends_the_trial_with_the_reason(
        self, trial: Callable[..., DistillationTrial]
    ) -> None:
        result = trial(alpha_init=1e30).step()
        assert result["failed"] == (
            "diverged: no finite update in iterations 0 to 1 (α = 1e+30); lower alpha_init or lr_pixel"
        )
        assert result["done"] and math.isnan(result["validation_accuracy"])

    def test_the_average_is_what_is_validated(
        self, trial: Callable[..., DistillationTrial], alone: Callable[..., Distiller]
    ) -> None:
        # Decay so close to 1 that the average stays the initial images, to which lr_pixel would put an end.
        options = {"ema_decay": 1 - 1e-9, "lr_pixel": 1e4, "max_matching_loss": 1e30}
        averaged, plain, still = trial(**options), trial(**{**options, "ema_decay": 0.0}), trial(lr_pixel=1e-30)
        accuracies = [run.step()["validation_accuracy"] for run in (averaged, plain, still)]
        assert accuracies[0] == accuracies[2] != accuracies[1]


class TestMovement:
    """A trial that does not move its images ends, with what is wrong and what to change."""

    def test_first_updates_that_are_all_skipped_end_the_trial(self, trial: Callable[..., DistillationTrial]) -> None:
        result = trial(max_matching_loss=1e-6).step()
        assert (result["done"], result["iteration"]) == (True, 2)  # a rung, which is not validated
        assert math.isnan(result["validation_accuracy"])
        assert re.fullmatch(
            r"no update was accepted: in iterations 0 to 1 no matching loss was below 0\.\d+, with α = 0\.05, and "
            r"max_matching_loss is 1e-06; set alpha_init=auto, or raise max_matching_loss",
            result["failed"],
        )

    def test_only_the_first_updates_count(
        self, trial: Callable[..., DistillationTrial], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trainables.workers.trial.FIRST_UPDATES", 1)
        running = trial(max_matching_loss=1e-6)
        assert running.step()["iteration"] == 1
        moved, limited = trial(), trial(max_matching_loss=1e-6)
        moved.step()
        limited._distiller.load_state_dict(state_of(moved))
        assert "failed" not in limited.step()

    def test_one_accepted_update_is_enough(self, trial: Callable[..., DistillationTrial]) -> None:
        still = {"lr_pixel": 1e-12, "lr_alpha": 0.0}
        distiller = trial(**still)._distiller
        losses = [distiller.step().loss for _ in range(2)]
        assert trial(**still, max_matching_loss=min(losses)).step()["skip_rate"] == 0.5

    def test_an_alpha_that_is_not_positive_ends_the_trial(self, trial: Callable[..., DistillationTrial]) -> None:
        down = {"alpha_init": 0.5, "momentum_alpha": 0.0, "lr_pixel": 1e-9, "lr_alpha": 1.0}
        result = trial(**down).step()
        assert re.fullmatch(
            r"α became -\d.* in iteration 0, and inner steps go uphill; lower lr_alpha, or set alpha_update=log or "
            r"alpha_floor",
            result["failed"],
        )
        assert result["done"]
        assert "failed" not in trial(**down, alpha_update="log").step()
        assert "failed" not in trial(**down, alpha_floor=1e-3).step()


class TestFoundAlpha:
    def test_is_that_of_the_losses_over_alpha_and_is_kept_with_them(
        self, trial: Callable[..., DistillationTrial], alone: Callable[..., Distiller], trajectories: Trajectories,
        tmp_path: Path,
    ) -> None:  # fmt: skip
        running = trial(alpha_init="auto")
        distiller = alone()
        curve = find_alpha(
            distiller.config, matcher=distiller.matcher, trajectories=trajectories, images=distiller.images,
            labels=distiller.labels, seed=SEED,
        )  # fmt: skip
        assert running._distiller.config.alpha == curve.best
        running.step()
        state = read_checkpoint(checkpoint_place(str(tmp_path), 0))
        assert AlphaCurve.of_state(state) == curve
        told = losses_of_trial(running._bench.work, running._settings, checkpoint_place(str(tmp_path), 0), 3, 3, 5)
        assert told is not None and told.alpha_curve == curve.points

    @pytest.mark.parametrize("options", [{}, {**SOFT, "alpha_update": "log"}], ids=["hard", "soft, log"])
    def test_a_resumed_trial_keeps_it_bit_for_bit_and_does_not_look_again(
        self, trial: Callable[..., DistillationTrial], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options = {**options, "alpha_init": "auto"}
        first, undisturbed = trial(**options), trial(**options)
        reported = first.step()
        with monkeypatch.context() as patch:
            patch.setattr("trainables.workers.workbench.find_alpha", None)
            resumed = trial(**options, trial_number=0)
        assert resumed.step() == reported
        assert same_result(resumed.step(), [undisturbed.step() for _ in range(2)][1])
        assert_same(state_of(resumed), state_of(undisturbed))

    def test_its_failure_does_not_advise_what_is_done(self, trial: Callable[..., DistillationTrial]) -> None:
        reason = trial(alpha_init="auto", max_matching_loss=1e-6).step()["failed"]
        assert "alpha_init" not in reason and reason.endswith("1e-06; raise max_matching_loss")

    def test_another_method_trains_at_it(self, trial: Callable[..., DistillationTrial]) -> None:
        options = {"initialization": "real", "alpha_init": "auto"}
        dc = trial(**options, method="gradient", batch_real=12, lr_pixel=0.1)
        assert state_of(dc)["alpha"] == state_of(trial(**options))["alpha"]


def test_a_checkpoint_is_tensors_and_json_with_these_names(
    trial: Callable[..., DistillationTrial], tmp_path: Path
) -> None:
    running = trial(**SOFT, ema_decay=0.5)
    result = running.step()
    assert RungPictures.take_from(result) is not None
    state = read_checkpoint(checkpoint_place(str(tmp_path), 0))
    assert state is not None
    tensors = {name for name, value in state.items() if isinstance(value, torch.Tensor)}
    assert tensors == {"images", "image_velocity", "labels", "label_velocity", "ema"}
    assert state.keys() - tensors == {
        "alpha", "alpha_velocity", "iteration", "skipped", "not_finite", "floored",
        "settings", "trial_seconds", "rung", "unconfirmed", "micro_batch",
    }  # fmt: skip
    assert state["unconfirmed"] == result
    assert state["settings"].keys() == {*SOFT, "ema_decay", "trial_number", "shared"}


METHODS = {
    "distribution": (DistributionMatching, {"lr_pixel": 1.0, "batch_real": 12}, "distribution_loss"),
    "gradient": (GradientMatching, {"lr_pixel": 0.1, "batch_real": 12, "outer_loop": 3, "inner_loop": 2},
                 "gradient_loss"),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
class TestOtherMethods:
    def options(self, method: str, **changed: Any) -> dict[str, Any]:
        return {"method": method, "initialization": "real", "ema_decay": 0.5, **METHODS[method][1], **changed}

    def test_a_rung_is_the_distillation_of_its_settings(
        self,
        trial: Callable[..., DistillationTrial],
        work: TrialWork,
        small_digits: ImageDataset,
        small_network: ConvNet,
        method: str,
    ) -> None:
        kind, _, loss_name = METHODS[method]
        options = self.options(method)
        running = trial(**options)
        distiller = kind(
            distillation_config(**{**SETTINGS, **options}),
            network=small_network,
            augmentation=work.augmentation,
            dataset=small_digits,
            images=real_images(small_digits, 1, SEED),
            seed=SEED,
        )
        done = [distiller.step() for _ in range(2)]
        result = running.step()
        assert_same(state_of(running), distiller.state_dict())
        assert result[loss_name] == pytest.approx(sum(iteration.loss for iteration in done) / 2, rel=1e-12)
        assert result["image_displacement"] == distiller.displacement > 0
        assert (result["iteration"], result["done"], result["micro_batch_images"]) == (2, False, 12)
        assert (result["skip_rate"], result["not_finite_rate"]) == (0, 0)
        assert 0 <= result["validation_accuracy"] <= 1
        assert running.step()["done"]

    def test_a_rung_says_nothing_that_the_method_does_not_have(
        self, trial: Callable[..., DistillationTrial], method: str
    ) -> None:
        ours, theirs = trial(**self.options(method)).step(), trial().step()
        assert theirs.keys() - ours.keys() == {"matching_loss", "alpha", "floor_rate", "upper_bound_epochs"}
        assert ours.keys() - theirs.keys() == {METHODS[method][2]}

    def test_resumes_from_its_checkpoint_bit_for_bit(
        self, trial: Callable[..., DistillationTrial], method: str
    ) -> None:
        options = self.options(method)
        first, undisturbed = trial(**options), trial(**options)
        reported = first.step()
        resumed = trial(**options, trial_number=0)
        assert resumed.step() == reported
        assert same_result(resumed.step(), [undisturbed.step() for _ in range(2)][1])
        assert_same(state_of(resumed), state_of(undisturbed))

    def test_an_images_average_is_what_is_validated(self, trial: Callable[..., DistillationTrial], method: str) -> None:
        still = trial(**self.options(method, ema_decay=1 - 1e-9, lr_pixel=1e3)).step()
        moved = trial(**self.options(method, ema_decay=0.0, lr_pixel=1e3)).step()
        first = trial(**self.options(method, lr_pixel=1e-30)).step()
        assert still["validation_accuracy"] == first["validation_accuracy"] != moved["validation_accuracy"]

    def test_without_gpu_memory_half_the_images_are_taken_at_a_time(
        self, trial: Callable[..., DistillationTrial], method: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        halved, whole = trial(**self.options(method)), trial(**self.options(method))
        kind: Any = METHODS[method][0]
        gradient = kind.loss_and_gradient

        def scarce(distiller: Any) -> Any:
            if distiller.micro_batch > 6:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return gradient(distiller)

        with monkeypatch.context() as patch:
            patch.setattr(kind, "loss_and_gradient", scarce)
            assert halved.step()["micro_batch_images"] == 6
        whole.step()
        torch.testing.assert_close(state_of(halved)["images"], state_of(whole)["images"], rtol=1e-3, atol=1e-4)
        assert trial(**self.options(method), trial_number=0)._distiller.micro_batch == 6

    def test_a_rung_without_a_finite_update_ends_the_trial_with_the_reason(
        self, trial: Callable[..., DistillationTrial], method: str
    ) -> None:
        running = trial(**self.options(method, lr_pixel=100.0))
        huge = torch.full_like(running._distiller.images, 3e38)
        running._distiller.load_state_dict({**state_of(running), "image_velocity": huge})
        result = running.step()
        assert result["failed"].startswith("diverged: no finite update in iterations 0 to 1")
        assert result["failed"].endswith("lower lr_pixel" if method == "distribution" else "alpha_init or lr_pixel")

    def test_its_set_is_measured_along_experts_like_any(
        self,
        trial: Callable[..., DistillationTrial],
        work: TrialWork,
        trajectories: Trajectories,
        tmp_path: Path,
        method: str,
    ) -> None:
        running = trial(**self.options(method))
        running.step()
        place = checkpoint_place(str(tmp_path), 0)
        told = losses_of_trial(work, running._settings, place, 3, 9, 5)
        matching = running._bench.trajectory_matching({})
        state = {**matching.state_dict(), "images": running._distiller.result_images}
        matching.load_state_dict(state)
        assert told is not None
        assert told.alpha == SETTINGS["alpha_init"]
        assert told.losses == matching_losses(matching, trajectories, told.start_epochs, 5).tolist()
        began = losses_of_trial(work, running._settings, None, 3, 9, 5)
        assert began is not None and told.losses != began.losses


def test_settings_that_a_method_cannot_do_end_the_trial_with_the_reason(
    trial: Callable[..., DistillationTrial],
) -> None:
    assert "label_mode must be hard where method is gradient" in trial(method="gradient", **SOFT).step()["failed"]


def test_an_unknown_method_ends_the_trial_with_the_known_ones(
    trial: Callable[..., DistillationTrial], work: TrialWork
) -> None:
    known = ", ".join(method.name for method in work.methods)
    assert trial(method="DM").step()["failed"] == f"method is one of {known}, not DM"


class TestFaults:
    def test_settings_that_cannot_begin_end_the_trial_with_the_reason(
        self, trial: Callable[..., DistillationTrial]
    ) -> None:
        result = trial(precision="bf16", compile="off").step()
        assert "compile must be auto or on" in result["failed"] and result["done"] and result["iteration"] == 0

    @pytest.mark.parametrize("error", GPU_MEMORY_ERRORS.values(), ids=GPU_MEMORY_ERRORS.keys())
    def test_without_gpu_memory_half_the_images_are_taken_at_a_time_once(
        self, trial: Callable[..., DistillationTrial], error: RuntimeError
    ) -> None:
        whole, halved, hopeless = trial(), trial(), trial()
        whole.step()
        fail_with_memory(halved, error, above=5)
        result = halved.step()
        assert result["micro_batch_images"] == 5
        torch.testing.assert_close(state_of(halved)["images"], state_of(whole)["images"], rtol=1e-3, atol=1e-4)
        resumed = trial(trial_number=1)  # which does not have to find out again
        distiller = resumed._distiller
        assert isinstance(distiller, Distiller) and distiller.matcher.step.micro_batch == 5
        fail_with_memory(hopeless, error, above=4)
        failed = hopeless.step()["failed"]
        assert failed.startswith("out of GPU memory with 5 images at a time")
        assert failed.endswith("; lower --memory-budget or batch_syn")

    def test_without_gpu_memory_for_kept_graphs_none_is_kept_and_nothing_else_changes(
        self, trial: Callable[..., DistillationTrial], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, running = trial(), trial()
        expected = whole.step()
        gradient = Matcher.__call__

        def scarce(matcher: Matcher, **arguments: Any) -> Any:
            if matcher.kept_steps:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return gradient(matcher, **arguments)

        distiller = running._distiller
        assert isinstance(distiller, Distiller) and distiller.matcher.kept_steps > 0
        monkeypatch.setattr(Matcher, "__call__", scarce)
        assert running.step()["micro_batch_images"] == expected["micro_batch_images"]
        assert distiller.matcher.kept_steps == 0
        assert torch.equal(state_of(running)["images"], state_of(whole)["images"])

    @pytest.mark.parametrize("error", GPU_MEMORY_ERRORS.values(), ids=GPU_MEMORY_ERRORS.keys())
    def test_without_gpu_memory_for_the_unrolled_gradient_the_trial_ends_with_the_reason(
        self, trial: Callable[..., DistillationTrial], error: RuntimeError
    ) -> None:
        running = trial(gradient="unrolled")
        fail_with_memory(running, error, above=0)
        result = running.step()
        assert result["done"] and result["failed"] == (
            "out of GPU memory with the graphs of N = 4 steps of batch_syn = 10 images (gradient=unrolled) "
            f"({first_line(error)}); set gradient=exact, or lower N or batch_syn"
        )

    @pytest.mark.parametrize("error", GPU_MEMORY_ERRORS.values(), ids=GPU_MEMORY_ERRORS.keys())
    @pytest.mark.parametrize(
        ("part", "when"), [("distiller", "before the first iteration"), ("validate", "in the validation")]
    )
    def test_without_gpu_memory_beside_the_gradient_the_trial_ends_with_the_reason(
        self,
        trial: Callable[..., DistillationTrial],
        monkeypatch: pytest.MonkeyPatch,
        error: RuntimeError,
        part: str,
        when: str,
    ) -> None:
        def fail(*_: Any) -> None:
            raise error

        monkeypatch.setattr(Workbench, part, fail)
        result = trial().step()
        assert result["done"] and result["failed"].startswith(f"out of GPU memory {when} ({first_line(error)}); lower")

    def test_a_distillation_of_a_comparison_takes_half_the_images_too(
        self, work: TrialWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, halved, hopeless = (str(tmp_path / f"{name}.safetensors") for name in ("whole", "halved", "hopeless"))
        distil_set(work, {"variant": "a"}, whole)
        gradient = Matcher.__call__

        def scarce(above: int) -> Any:
            def call(matcher: Matcher, **work: Any) -> MatchingGradient:
                if (matcher.step.micro_batch or math.inf) > above:
                    raise GPU_MEMORY_ERRORS["cuDNN's engines"]
                return gradient(matcher, **work)

            return call

        monkeypatch.setattr(Matcher, "__call__", scarce(5))
        distil_set(work, {"variant": "a"}, halved)
        sets = [read_checkpoint(place) for place in (whole, halved)]
        assert sets[0] is not None and sets[1] is not None and not torch.equal(sets[0]["images"], sets[1]["images"])
        torch.testing.assert_close(sets[0]["images"], sets[1]["images"], rtol=1e-3, atol=1e-4)
        monkeypatch.setattr(Matcher, "__call__", scarce(4))
        with pytest.raises(ConfigError, match="out of GPU memory with 5 images at a time"):
            distil_set(work, {"variant": "a"}, hopeless)
        assert read_checkpoint(hopeless) is None

    @pytest.mark.parametrize("part", ["distiller", "validate"])
    def test_an_error_of_another_kind_is_no_matter_of_the_settings(
        self, trial: Callable[..., DistillationTrial], monkeypatch: pytest.MonkeyPatch, part: str
    ) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("CUDA error: device-side assert triggered")

        monkeypatch.setattr(Workbench, part, fail)
        with pytest.raises(RuntimeError, match="device-side assert"):
            trial().step()

    def test_a_full_disk_halts_the_trial_and_spares_the_old_checkpoint(
        self, trial: Callable[..., DistillationTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running = trial()
        running.step()
        place = checkpoint_place(str(tmp_path), 0)
        before = Path(place).read_bytes()
        monkeypatch.setattr("trainables.workers.trial.write_checkpoint", no_room)
        result = running.step()
        assert f"no room for the checkpoint {place}" in result["halted"] and result["done"]
        assert Path(place).read_bytes() == before


def no_room(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def fail_with_memory(trial: Any, error: RuntimeError, *, above: int) -> None:
    """Let the trial's gradients run out of memory where they take more than so many images at a time."""
    distiller, make = trial._distiller, trial._bench.matcher

    class Scarce(Matcher):
        def __call__(self, **work: Any) -> MatchingGradient:
            if (self.step.micro_batch or math.inf) > above:
                raise error
            return super().__call__(**work)

    def scarce(settings: Any, micro_batch: int | None) -> Any:
        matcher = make(settings, micro_batch)
        return Scarce(matcher.step, matcher.augmentation, method=settings.gradient)

    trial._bench.matcher = scarce
    distiller.matcher = scarce(distiller.config, distiller.matcher.step.micro_batch)
