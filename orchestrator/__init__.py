"""Who runs what, where: Ray, Optuna, MLflow, reports and the command line."""

import os

# Ray reads these when it is imported, here and in child processes: they are set before any module of ours does.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else `uv run` makes Ray build an environment a worker
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # MLflow and the study hold the results
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new engine prints its banner however quiet it is asked to be
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths of the user stay what they are
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # CPU workers need no CUDA_VISIBLE_DEVICES of theirs
