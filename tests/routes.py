"""Every route that MLflow and Prefect register, and what each may do there.

A route that a new release brings is in no list: the tests name it, and whoever upgrades places it.
In MLflow's lists `/api/` stands for `/ajax-api/` too, and `*` for a part of the path.
"""

import re

# Without an account.
MLFLOW_PUBLIC = """
GET /api/3.0/mlflow/server-info
GET /health
GET /static-files/*
"""

# A plain account reads what others have made, as `default_permission` says.
MLFLOW_READ = """
GET /
GET /get-artifact
GET /model-versions/get-artifact
GET /version
GET,POST /graphql
GET /api/2.0/mlflow-artifacts/artifacts
GET /api/2.0/mlflow-artifacts/artifacts/*
GET /api/2.0/mlflow/artifacts/list
GET /api/2.0/mlflow/experiments/get
GET /api/2.0/mlflow/experiments/get-by-name
GET,POST /api/2.0/mlflow/experiments/search
POST /api/2.0/mlflow/experiments/search-datasets
GET /api/2.0/mlflow/logged-models/*
GET /api/2.0/mlflow/logged-models/*/artifacts/directories
GET /api/2.0/mlflow/logged-models/*/artifacts/files
POST /api/2.0/mlflow/logged-models/search
GET /api/2.0/mlflow/metrics/get-history
GET /api/2.0/mlflow/metrics/get-history-bulk
GET /api/2.0/mlflow/metrics/get-history-bulk-interval
GET /api/2.0/mlflow/model-versions/get
GET /api/2.0/mlflow/model-versions/get-download-uri
GET /api/2.0/mlflow/model-versions/search
GET /api/2.0/mlflow/registered-models/alias
GET /api/2.0/mlflow/registered-models/get
GET,POST /api/2.0/mlflow/registered-models/get-latest-versions
GET /api/2.0/mlflow/registered-models/search
GET /api/2.0/mlflow/runs/get
POST /api/2.0/mlflow/runs/search
GET /api/2.0/mlflow/users/current
GET /api/2.0/mlflow/users/list
GET /api/3.0/mlflow/users/current/permissions
POST /api/3.0/mlflow/traces/metrics
POST /api/3.0/mlflow/traces/search
"""

# A plain account makes these for itself.
MLFLOW_MAKE = """
POST /api/2.0/mlflow/experiments/create
POST /api/2.0/mlflow/registered-models/create
"""

# A plain account changes only what it has made.
MLFLOW_OWN = """
DELETE,PUT /api/2.0/mlflow-artifacts/artifacts/*
POST /api/2.0/mlflow/experiments/delete
POST /api/2.0/mlflow/experiments/delete-experiment-tag
POST /api/2.0/mlflow/experiments/restore
POST /api/2.0/mlflow/experiments/set-experiment-tag
POST /api/2.0/mlflow/experiments/update
POST /api/2.0/mlflow/logged-models
DELETE,PATCH /api/2.0/mlflow/logged-models/*
POST /api/2.0/mlflow/logged-models/*/params
PATCH /api/2.0/mlflow/logged-models/*/tags
DELETE /api/2.0/mlflow/logged-models/*/tags/*
POST /api/2.0/mlflow/model-versions/create
DELETE /api/2.0/mlflow/model-versions/delete
DELETE /api/2.0/mlflow/model-versions/delete-tag
POST /api/2.0/mlflow/model-versions/set-tag
POST /api/2.0/mlflow/model-versions/transition-stage
PATCH /api/2.0/mlflow/model-versions/update
DELETE,POST /api/2.0/mlflow/registered-models/alias
DELETE /api/2.0/mlflow/registered-models/delete
DELETE /api/2.0/mlflow/registered-models/delete-tag
POST /api/2.0/mlflow/registered-models/rename
POST /api/2.0/mlflow/registered-models/set-tag
PATCH /api/2.0/mlflow/registered-models/update
POST /api/2.0/mlflow/runs/create
POST /api/2.0/mlflow/runs/delete
POST /api/2.0/mlflow/runs/delete-tag
POST /api/2.0/mlflow/runs/log-batch
POST /api/2.0/mlflow/runs/log-inputs
POST /api/2.0/mlflow/runs/log-metric
POST /api/2.0/mlflow/runs/log-model
POST /api/2.0/mlflow/runs/log-parameter
POST /api/2.0/mlflow/runs/outputs
POST /api/2.0/mlflow/runs/restore
POST /api/2.0/mlflow/runs/set-tag
POST /api/2.0/mlflow/runs/update
POST /api/2.0/mlflow/upload-artifact
"""

# Other accounts are the administrator's.
MLFLOW_ADMIN = """
GET /signup
POST /api/2.0/mlflow/users/create
POST /api/2.0/mlflow/users/create-ui
DELETE /api/2.0/mlflow/users/delete
GET /api/2.0/mlflow/users/get
PATCH /api/2.0/mlflow/users/update-admin
PATCH /api/2.0/mlflow/users/update-password
POST /api/3.0/mlflow/roles/assign
POST /api/3.0/mlflow/roles/create
DELETE /api/3.0/mlflow/roles/delete
GET /api/3.0/mlflow/roles/get
GET /api/3.0/mlflow/roles/list
POST /api/3.0/mlflow/roles/permissions/add
GET /api/3.0/mlflow/roles/permissions/list
DELETE /api/3.0/mlflow/roles/permissions/remove
PATCH /api/3.0/mlflow/roles/permissions/update
DELETE /api/3.0/mlflow/roles/unassign
PATCH /api/3.0/mlflow/roles/update
GET /api/3.0/mlflow/roles/users/list
GET /api/3.0/mlflow/users/permissions/get
POST /api/3.0/mlflow/users/permissions/grant
GET /api/3.0/mlflow/users/permissions/list
POST /api/3.0/mlflow/users/permissions/revoke
GET /api/3.0/mlflow/users/roles/list
"""

# Not there for anybody, with all that lies below.
MLFLOW_REFUSED = """
/api/2.0/mlflow-artifacts/mpu
/api/2.0/mlflow-artifacts/presigned
/api/2.0/mlflow/artifacts/presigned-download-url
/api/2.0/mlflow/artifacts/presigned-upload-url
/api/2.0/mlflow/gateway-proxy
/api/2.0/mlflow/get-online-trace-details
/api/2.0/mlflow/get-trace-artifact
/api/2.0/mlflow/runs/create-promptlab-run
/api/2.0/mlflow/traces
/api/2.0/mlflow/unified-traces
/api/2.0/mlflow/webhooks
/api/2.0mlflow/experiments/search-datasets
/api/3.0/jobs
/api/3.0/mlflow/assistant
/api/3.0/mlflow/datasets
/api/3.0/mlflow/demo
/api/3.0/mlflow/gateway
/api/3.0/mlflow/genai
/api/3.0/mlflow/get-trace-artifact
/api/3.0/mlflow/issues
/api/3.0/mlflow/jobs
/api/3.0/mlflow/label-schemas
/api/3.0/mlflow/mcp-servers
/api/3.0/mlflow/prompt-optimization
/api/3.0/mlflow/review-queues
/api/3.0/mlflow/scorer
/api/3.0/mlflow/scorers
/api/3.0/mlflow/traces
/api/3.0/mlflow/ui-telemetry
/api/3.0/mlflow/workspaces
/build
/gateway
/v1/traces
"""


def plain(rule: str) -> str:
    """Return a rule as it stands in the lists."""
    return re.sub(r"<[^>]+>|{[^}]+}", "*", rule.replace("/ajax-api/", "/api/"))


def listed(text: str) -> set[tuple[str, str]]:
    """Return the pairs of method and rule of a list."""
    rows = [line.split() for line in text.splitlines() if line]
    return {(method, rule) for methods, rule in rows for method in methods.split(",")}


# Prefect has one password, and with it one may everything. Without it: whether the server is well,
# and the files of its pages, which then ask for the password.
PREFECT_PUBLIC = """
GET /api/health
GET /api/ready
GET /docs
GET /docs/oauth2-redirect
GET /openapi.json
GET /redoc
GET /ui-settings
"""

# With the password only, with all that lies below.
PREFECT_CLOSED = """
/api/admin
/api/artifacts
/api/automations
/api/block_capabilities
/api/block_documents
/api/block_schemas
/api/block_types
/api/collections
/api/concurrency_limits
/api/csrf-token
/api/deployments
/api/docs
/api/events
/api/flow_run_states
/api/flow_runs
/api/flows
/api/hello
/api/logs
/api/openapi.json
/api/redoc
/api/saved_searches
/api/task_run_states
/api/task_runs
/api/task_workers
/api/templates
/api/ui
/api/v2
/api/variables
/api/version
/api/work_pools
/api/work_queues
"""
