"""MLflow: the runs, the registry, and the form in which a model is served."""

import os

# Before mlflow is imported, and only where the user has said nothing: nothing is sent anywhere
# but to the store, and stderr is left to what matters.
for name, value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}.items():
    os.environ.setdefault(name, value)
