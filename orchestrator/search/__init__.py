"""The search: Optuna proposes, Ray Tune runs, ASHA stops."""
