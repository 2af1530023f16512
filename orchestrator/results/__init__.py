"""What was found, without Ray, MLflow or matplotlib."""
