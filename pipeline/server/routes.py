"""What our MLflow server answers; everything else that MLflow registers is 404 for everybody.

MLflow 3 comes with an assistant that runs commands on the server, a gateway to language models,
jobs, scorers, webhooks and more. Training needs none of them, and they all reach the host or the
network: only what is listed here is served, also after an update of MLflow.
"""

# Each with everything below it.
PAGES = (
    "/",
    "/health",
    "/version",
    "/signup",
    "/static-files",
    "/graphql",
    "/get-artifact",
    "/model-versions/get-artifact",
)
# Below `/api/` for clients, and below `/ajax-api/` for pages.
API = (
    "/2.0/mlflow/experiments",
    "/2.0/mlflow/runs",
    "/2.0/mlflow/metrics",
    "/2.0/mlflow/artifacts/list",
    "/2.0/mlflow/upload-artifact",
    "/2.0/mlflow/logged-models",
    "/2.0/mlflow/registered-models",
    "/2.0/mlflow/model-versions",
    "/2.0/mlflow-artifacts/artifacts",
    "/2.0/mlflow/users",
    "/3.0/mlflow/users",
    "/3.0/mlflow/roles",
    "/3.0/mlflow/server-info",
    # The pages of an experiment ask for these.
    "/3.0/mlflow/traces/search",
    "/3.0/mlflow/traces/metrics",
)
# Not served: asks a language model.
NOT = ("/2.0/mlflow/runs/create-promptlab-run",)


def is_served(path: str) -> bool:
    """Return whether a path is served, such as `/api/2.0/mlflow/runs/create`."""
    for prefix in ("/api/", "/ajax-api/"):
        if path.startswith(prefix):
            below = path[len(prefix) - 1 :]
            return _lies_below(below, API) and not _lies_below(below, NOT)
    return path == "/" or _lies_below(path, PAGES[1:])


def _lies_below(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)
