"""Who runs what, where: Ray, Optuna, MLflow, reports and the command line."""
