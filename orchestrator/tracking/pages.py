"""Saved views of MLflow's pages for a sweep: its columns and charts, the best trial first.

MLflow keeps a saved view of an experiment's page as a tag of the experiment, `mlflow.sharedViewState.ID`: a JSON object
with the view's name, its time of creation, and the page's state, which is JSON, deflated and in base64. The page opens
with the view at `?viewStateShareKey=ID`, if the address has no filter or order of its own, and its menu of views lists
the view by name. Saved views came with MLflow 3.15; the state's keys are those that the page itself saves.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import ClusterError
from orchestrator.state.databases import wait_while_locked
from orchestrator.state.stage import FINALS, SEARCH
from search_spaces import Comparison, Space
from search_spaces.name_lists import REGIMES, listed

__all__ = ["compare_page", "prepare_pages"]

COMPARED = 10
"""Trials on the page that compares the best ones: the columns of a wide screen."""
_ACCURACY = "validation_accuracy"
# A trial has one of the last two: on a CPU the memory of its process, on a GPU the trial's own peak.
_METRICS = (
    _ACCURACY, "matching_loss", "alpha", "skip_rate", "image_displacement", "resident_memory_mib", "peak_memory_mib",
)  # fmt: skip
_OVER_ITERATIONS = (_ACCURACY, "matching_loss", "alpha")


def prepare_pages(tracking_uri: str, space: Space, sweep: str, experiment_id: str, run_id: str) -> dict[str, str]:
    """Save the view of a sweep's trials or a comparison's sets, and return the pages' addresses; repeatable.

    Args:
        tracking_uri: MLflow's server or database.
        space: The sweep's space.
        sweep: The sweep's name, and the view's.
        experiment_id: The space's experiment.
        run_id: The sweep's parent run, and the view's id.

    Returns:
        Addresses by title, to be appended to the server's own.

    Raises:
        ClusterError: MLflow does not answer, or no longer has the run.
    """
    if isinstance(space, Comparison):
        stage, noun, metric, state = FINALS, "sets", _of_regime(_regimes(space)[0]), _state_of_sets
    else:
        stage, noun, metric, state = SEARCH, "trials", _ACCURACY, _state_of_trials
    runs = f"tags.`mlflow.parentRunId` = '{run_id}' and tags.`mdatm.stage` = '{stage}'"
    client = MlflowClient(tracking_uri)

    def prepare() -> Sequence[Run]:
        created_ms = client.get_run(run_id).info.start_time
        view = _saved_view(sweep, created_ms, state(space, runs))
        client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{run_id}", view)
        return client.search_runs([experiment_id], runs, order_by=[f"metrics.`{metric}` DESC"], max_results=COMPARED)

    try:
        best = wait_while_locked(prepare, f"MLflow's database {tracking_uri}")
    except (MlflowException, SQLAlchemyError) as error:
        bottom: BaseException = error  # MLflow wraps "connection refused" four times
        while bottom.__context__ is not None:
            bottom = bottom.__context__
        raise ClusterError(
            f"MLflow at {tracking_uri} does not show the sweep {sweep!r} ({bottom}); check that it is up and has it"
        ) from error
    page = f"#/experiments/{experiment_id}/runs?viewStateShareKey={run_id}&workflowType=machine_learning"
    return {
        f"Charts of the {noun}": f"{page}&compareRunsMode=CHART",
        f"Table of the {noun}": f"{page}&compareRunsMode=TABLE",
        f"Compare the best {noun}": compare_page(experiment_id, [run.info.run_id for run in best]),
    }


def compare_page(experiment_id: str, run_ids: list[str]) -> str:
    """Return the address of MLflow's page that compares runs, to be appended to the server's own."""
    runs, experiments = (quote(json.dumps(ids)) for ids in (run_ids, [experiment_id]))
    return f"#/compare-runs?runs={runs}&experiments={experiments}"


def _saved_view(name: str, created_ms: int, state: dict[str, Any]) -> str:
    """Return a view as MLflow's pages save it: name, creation time in ms since 1970, and the page's state."""
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": name, "createdAt": created_ms, "updatedAt": created_ms, "state": f"deflate;{packed}"})


def _state_of_trials(space: Space, runs: str) -> dict[str, Any]:
    """Return the state of an experiment's page that shows a sweep's trials.

    Args:
        space: Its varied settings are columns, and axes of the parallel coordinates.
        runs: The filter that selects the trials.
    """
    first_rung = space.fixed["first_rung_iterations"].value  # all trials have reached it
    metrics = [f"metrics.`{name}`" for name in _METRICS]
    params = [f"params.`{name}`" for name in space.trial_keys]
    columns = ["tags.`mdatm.outcome`", *metrics, *params]
    charts = [
        _chart("settings", "PARALLEL", selectedParams=space.varied, selectedMetrics=[_ACCURACY], showAllRuns=True),
        *(_chart("iterations", "LINE", metricKey=name, lineSmoothness=0) for name in _OVER_ITERATIONS),
        _chart("iterations", "SCATTER", xaxis=_axis("matching_loss"), yaxis=_axis(_ACCURACY)),
        _chart("images", "IMAGE", imageKeys=["synthetic"], step=first_rung, showRunParams=False),
    ]
    sections = [
        _section("settings", "Settings and accuracy", columns=1, height=420),
        _section("iterations", "Accuracy, loss and α", columns=2, height=320),
        _section("images", "Synthetic images", columns=1, height=560),
    ]
    shown = {"columnOrder": ["duration", *columns], "runsHiddenMode": "FIRST_20_RUNS"}
    return _state(runs, _ACCURACY, columns, charts, sections) | shown


def _state_of_sets(space: Space, runs: str) -> dict[str, Any]:
    """Return the state of an experiment's page that shows a comparison's sets.

    Args:
        space: The comparison's.
        runs: The filter that selects the sets.
    """
    means = [_of_regime(regime) for regime in _regimes(space)]
    columns = [*(f"params.`{name}`" for name in ("method", "ipc")), *(f"metrics.`{name}`" for name in means)]
    charts = [
        _chart("settings", "PARALLEL", selectedParams=["method", "ipc"], selectedMetrics=means, showAllRuns=True),
        *(_chart("regimes", "BAR", metricKey=name) for name in means),
    ]
    sections = [
        _section("settings", "Method, images per class and accuracy", columns=1, height=520),
        _section("regimes", "Accuracy by label regime", columns=1, height=900),
    ]
    return _state(runs, means[0], columns, charts, sections) | {"columnOrder": columns, "runsHiddenMode": "SHOWALL"}


def _state(
    runs: str, metric: str, columns: list[str], charts: list[dict[str, Any]], sections: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the common part of a page's state: the runs that a filter selects, the best by a metric first."""
    return {
        "searchFilter": runs,
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnWidths": {column: _width(column) for column in columns},
        "compareRunCharts": charts,
        # MLflow puts charts of all other metrics under the last name.
        "compareRunSections": [*sections, _section("others", "Model metrics", columns=3, height=320, display=False)],
        "isAccordionReordered": True,
    }


def _regimes(space: Space) -> tuple[str, ...]:
    return listed(str(space.fixed["regimes"].value), REGIMES)


def _of_regime(regime: str) -> str:
    """Return the metric of a set's mean accuracy in a label regime."""
    return f"{regime}_test_accuracy_mean"


def _width(column: str) -> int:
    """Return the width of a column in pixels: room for its name and a short number."""
    name = column.split("`")[1]
    return max(80, 30 + 6 * len(name))


def _chart(section: str, kind: str, **options: Any) -> dict[str, Any]:
    uuid = f"{section}-{kind}-{options.get('metricKey', '')}"
    return {"uuid": uuid, "type": kind, "metricSectionId": section, "deleted": False, "isGenerated": False, **options}


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}


def _section(uuid: str, name: str, *, columns: int, height: int, display: bool = True) -> dict[str, Any]:
    return {
        "uuid": uuid, "name": name, "display": display, "isReordered": False, "columns": columns, "cardHeight": height,
    }  # fmt: skip
