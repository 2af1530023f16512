"""MLflow's pages about a sweep, made ready to look at: the columns and charts that a person wants, best trial first.

MLflow keeps a saved view of an experiment's page as a tag of the experiment, `mlflow.sharedViewState.ID`: a JSON object
with the view's name, when it was made, and the page's state, which is JSON, deflated and in base64. The page opens with
it at `?viewStateShareKey=ID`, if the address has no filter or order of its own, and its menu of views lists it by name.
Saved views came with MLflow 3.15; the state's keys are those that the page itself saves.
"""

import base64
import json
import os
import zlib
from typing import Any
from urllib.parse import quote

# Said at once, and not after minutes of retries: a server that is away. Nobody is told how these pages are used.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from orchestrator.errors import ClusterError
from orchestrator.settings import FINALS, SEARCH
from search_spaces import Space
from search_spaces.listed import REGIMES, listed

__all__ = ["compare_page", "prepare_pages"]

COMPARED = 10
"""Trials on the page that compares the best: as many columns as a wide screen shows."""
_ACCURACY = "validation_accuracy"
# Of the last two a trial has one: a CPU's tell what a process holds, a GPU's the trial's own peak.
_METRICS = (
    _ACCURACY, "matching_loss", "alpha", "skip_rate", "image_displacement", "resident_memory_mib", "peak_memory_mib",
)  # fmt: skip
_PARAMS = ("N", "M", "T_minus", "T", "T_plus", "lr_pixel", "lr_alpha")
_OVER_ITERATIONS = (_ACCURACY, "matching_loss", "alpha")


def prepare_pages(tracking_uri: str, space: Space, sweep: str, experiment_id: str, run_id: str) -> dict[str, str]:
    """Save the view of a sweep's trials or a comparison's sets, the same each time, and return what to look at.

    Args:
        tracking_uri: MLflow's server or database.
        space: What the sweep varies.
        sweep: The sweep's name, and the view's.
        experiment_id: The space's experiment.
        run_id: The sweep's parent run, and the view's id.

    Returns:
        Addresses by what they show, to be put after the server's own.

    Raises:
        ClusterError: MLflow does not answer, or has no such run any more.
    """
    if space.ipcs:
        stage, what, metric, state = FINALS, "sets", _of_regime(_regimes(space)[0]), _state_of_sets
    else:
        stage, what, metric, state = SEARCH, "trials", _ACCURACY, _state_of_trials
    runs = f"tags.`mlflow.parentRunId` = '{run_id}' and tags.`mdatm.stage` = '{stage}'"
    client = MlflowClient(tracking_uri)
    try:
        made = client.get_run(run_id).info.start_time
        view = _saved_view(sweep, made, state(space, runs))
        client.set_experiment_tag(experiment_id, f"mlflow.sharedViewState.{run_id}", view)
        best = client.search_runs([experiment_id], runs, order_by=[f"metrics.`{metric}` DESC"], max_results=COMPARED)
    except MlflowException as error:
        bottom: BaseException = error  # MLflow wraps "connection refused" four times
        while bottom.__context__ is not None:
            bottom = bottom.__context__
        raise ClusterError(
            f"MLflow at {tracking_uri} does not show the sweep {sweep!r} ({bottom}); see to it that it is up and has it"
        ) from error
    page = f"#/experiments/{experiment_id}/runs?viewStateShareKey={run_id}&workflowType=machine_learning"
    return {
        f"Charts of the {what}": f"{page}&compareRunsMode=CHART",
        f"Table of the {what}": f"{page}&compareRunsMode=TABLE",
        f"Compare the best {what}": compare_page(experiment_id, [run.info.run_id for run in best]),
    }


def compare_page(experiment_id: str, run_ids: list[str]) -> str:
    """Return the address of MLflow's page that compares runs, to be put after the server's own."""
    runs, experiments = (quote(json.dumps(ids)) for ids in (run_ids, [experiment_id]))
    return f"#/compare-runs?runs={runs}&experiments={experiments}"


def _saved_view(name: str, made: int, state: dict[str, Any]) -> str:
    """Return a view as MLflow's pages save it: its name, milliseconds since 1970, and the page's state."""
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": name, "createdAt": made, "updatedAt": made, "state": f"deflate;{packed}"})


def _state_of_trials(space: Space, runs: str) -> dict[str, Any]:
    """Return the state of the page of an experiment's runs that shows a sweep's trials.

    Args:
        space: What is varied: columns, and the axes of the parallel coordinates.
        runs: The filter that finds the trials.
    """
    first_rung = space.fixed["first_rung_iterations"].value  # all trials came to it
    metrics = [f"metrics.`{name}`" for name in _METRICS]
    params = [f"params.`{name}`" for name in dict.fromkeys((*space.varied, *_PARAMS))]
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
    """Return the state of the page of an experiment's runs that shows a comparison's sets.

    Args:
        space: What is compared.
        runs: The filter that finds the sets.
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
    """Return what the state of every page of ours has: the runs that a filter finds, the best by a metric first."""
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
    """Return in how many pixels a column's name fits, and a short number."""
    name = column.split("`")[1]
    return max(80, 30 + 6 * len(name))


def _chart(section: str, kind: str, **what: Any) -> dict[str, Any]:
    uuid = f"{section}-{kind}-{what.get('metricKey', '')}"
    return {"uuid": uuid, "type": kind, "metricSectionId": section, "deleted": False, "isGenerated": False, **what}


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}


def _section(uuid: str, name: str, *, columns: int, height: int, display: bool = True) -> dict[str, Any]:
    return {
        "uuid": uuid, "name": name, "display": display, "isReordered": False, "columns": columns, "cardHeight": height,
    }  # fmt: skip
