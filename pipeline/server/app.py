"""MLflow's server as we run it: `mlflow server --app-name training`, or `training-accounts`.

It answers only what `routes` lists, keeps artifacts where the server says, and opens its
pages for model training.
"""

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import CreateExperiment
from mlflow.server import app as flask_app
from mlflow.server.handlers import _get_request_message, catch_mlflow_exception

from pipeline.server.routes import is_served

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# A version comes from a run or a logged model: the server fetches nothing from elsewhere.
OWN_SOURCES = r"^(runs|models|mlflow-artifacts):/"
# A script for its pages. They open in the mode for language models, with an assistant, until the
# user switches, which the browser remembers; and the list of runs asks a gateway for its models,
# and shows an error where there is none.
FOR_TRAINING = """<script>
const begin = {"mlflow.workflowType": "machine_learning",
               "mlflow.assistant.fab.autoOpenedOnFirstLoad": true}
for (const [name, value] of Object.entries(begin))
  if (!localStorage.getItem(`${name}_v1`)) localStorage.setItem(`${name}_v1`, JSON.stringify(value))
const ask = window.fetch
window.fetch = (what, ...more) => String(what).includes("/gateway-proxy")
  ? Promise.resolve(new Response('{"endpoints": []}')) : ask(what, ...more)
</script>"""


def create_app() -> App:
    """Return the server for one person, without accounts."""
    from mlflow.server.fastapi_app import create_fastapi_app

    return _hardened(create_fastapi_app(flask_app))


def create_app_with_accounts() -> App:
    """Return the server for a team, where everybody logs in."""
    # MLflow reads the settings when this is imported.
    from mlflow.server.auth import create_app as create_auth_app

    os.environ["MLFLOW_CREATE_MODEL_VERSION_SOURCE_VALIDATION_REGEX"] = OWN_SOURCES
    return _hardened(create_auth_app(flask_app))


def _hardened(app: Any) -> App:
    # MLflow's own switch: with it off, its pages do not offer the gateway.
    os.environ["MLFLOW_ENABLE_AI_GATEWAY"] = "false"
    views = flask_app.view_functions
    views["_create_experiment"] = _without_location(views["_create_experiment"])
    page = (Path(flask_app.static_folder) / "index.html").read_text()
    page = page.replace("<head>", f"<head>{FOR_TRAINING}", 1)
    views["serve"] = lambda: page
    app.add_middleware(OnlyServed)  # the last one runs first
    return app  # type: ignore[no-any-return]


def _without_location(create: Callable[[], Any]) -> Callable[[], Any]:
    """Refuse an experiment with an artifact location: the server would create that folder."""

    def create_experiment() -> Any:
        # MLflow's own parser, which takes `artifactLocation` too.
        location = _get_request_message(CreateExperiment()).artifact_location
        if location:
            raise MlflowException.invalid_parameter_value(
                f"artifact_location is {location!r}; allowed: none, because this server keeps "
                "all artifacts in one place; leave it out"
            )
        return create()

    answer: Callable[[], Any] = catch_mlflow_exception(create_experiment)
    return answer


class OnlyServed:
    """Answers 404 to everything that `routes` does not list, before the login.

    Args:
        app: answers the rest.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.prefix = os.environ.get("_MLFLOW_STATIC_PREFIX", "").rstrip("/")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http" and not is_served(scope["path"].removeprefix(self.prefix)):
            await _say_not_found(scope["path"], send)
        else:
            await self.app(scope, receive, send)


async def _say_not_found(path: str, send: Send) -> None:
    content = {
        "error_code": "ENDPOINT_NOT_FOUND",
        "message": f"{path} is not served here: only experiments, runs, models and accounts are",
    }
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
