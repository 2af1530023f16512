"""Logging to MLflow through a journal on disk; MLflow's own settings are set here, before it is imported."""

import os

# MLflow would repeat a request that timed out, and a slow server would make two runs. Without retries an unreachable
# server is also reported at once, not after minutes.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a sweep sends no usage data
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run, between our own
