"""What every flow must have: an entry in FLOWS, deployments, a form and a place in the guide."""

import pkgutil
from importlib import import_module

import pytest
from prefect import Flow, Task
from prefect.client.schemas.objects import State, StateType
from prefect.utilities.callables import parameter_schema
from ruamel.yaml import YAML

import flows
from flows.deploy import SLOTS, automations
from flows.execution.stages import StageFailed
from flows.retries import FLOWS, TASKS, is_retryable
from tests.conftest import ROOT

GUIDE = (ROOT / "docs" / "flows.md").read_text()
DEPLOYMENTS = YAML(typ="safe").load(ROOT / "prefect.yaml")["deployments"]
# Reproducing needs Keras, and no Prefect.
MODULES = [
    import_module(module.name)
    for module in pkgutil.walk_packages(flows.__path__, "flows.")
    if "reproduc" not in module.name
]


def flow_of(deployment):
    return deployment["entrypoint"].split(".")[1]


def test_every_flow_is_in_the_list():
    found = {
        value.name
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, Flow)
    }
    assert found == set(FLOWS), f"FLOWS in flows/retries.py differs: {found ^ set(FLOWS)}"


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_is_a_file_of_its_name(name):
    assert (ROOT / "flows" / f"{name}.py").exists(), f"flows/{name}.py is missing"
    flow = getattr(import_module(f"flows.{name}"), name, None)
    assert isinstance(flow, Flow), f"flows/{name}.py has no flow {name}"
    assert flow.name == name


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_has_deployments_that_the_guide_names(name):
    own = [one for one in DEPLOYMENTS if flow_of(one) == name]
    assert own, f"prefect.yaml has no deployment of flows.{name}.{name}"
    for one in own:
        assert one["entrypoint"] == f"flows.{name}.{name}"
        assert one["tags"] == [name], "the server finds runs to start again by this tag"
        assert one["description"]
        assert one["work_pool"]["name"] in SLOTS
        row = f"| `{name}/{one['name']}` |"
        assert row in GUIDE, f"the table of docs/flows.md has no row {row}"


@pytest.mark.parametrize("name", FLOWS)
def test_every_parameter_of_a_form_has_a_description(name):
    schema = parameter_schema(getattr(import_module(f"flows.{name}"), name))
    for parameter, field in schema.properties.items():
        assert field.get("description"), f"{parameter} is missing in the docstring of flows.{name}"


@pytest.mark.parametrize(("name", "policy"), FLOWS.items())
def test_the_server_restarts_what_the_list_says(name, policy):
    triggers = [one.trigger.model_dump(mode="json") for one in automations()]
    tags = {
        one["match_related"]["prefect.resource.id"]: one["match"]["prefect.run-count"]
        for one in triggers
        if "prefect.run-count" in one["match"]
    }
    counts = [str(number) for number in range(1, policy.restarts + 1)]
    assert tags.get(f"prefect.tag.{name}", []) == counts


def test_every_task_retries_as_the_list_says():
    found = {
        id(value): value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, Task)
    }
    names = {task.name for task in found.values()}
    assert names == set(TASKS), f"TASKS in flows/retries.py differs: {names ^ set(TASKS)}"
    for task in found.values():
        delays = TASKS[task.name].delays
        assert task.retries == len(delays), task.name
        assert (task.retry_condition_fn is is_retryable) == bool(delays), task.name


@pytest.mark.parametrize("retryable", [True, False])
def test_only_what_is_retryable_is_retried(retryable):
    failed = State(type=StateType.FAILED, data=StageFailed("no lock", retryable))
    assert is_retryable(None, None, failed) is retryable  # type: ignore[arg-type]
    failed = State(type=StateType.FAILED, data=ValueError("a bug"))
    assert not is_retryable(None, None, failed)  # type: ignore[arg-type]
