"""The work pools' job templates, against the workers that read them."""

import asyncio
import json

import pytest
from docker.types import HostConfig
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration
from prefect_kubernetes import KubernetesWorker
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from flows.deploy import RUN_ENVIRONMENT, job_template
from tests.conftest import ROOT

POOLS = ROOT / "docker" / "pools"


def template(name):
    return json.loads((POOLS / f"{name}.json").read_text())


def defaults(content):
    properties = content["variables"]["properties"]
    return {name: field["default"] for name, field in properties.items() if "default" in field}


@pytest.mark.parametrize(
    ("name", "worker"), [("docker-gpu", DockerWorker), ("kubernetes-gpu", KubernetesWorker)]
)
def test_a_template_has_all_that_its_worker_knows(name, worker):
    ours, theirs = template(name), worker.get_default_base_job_template()
    assert set(theirs["variables"]["properties"]) <= set(ours["variables"]["properties"])
    assert set(theirs["job_configuration"]) == set(ours["job_configuration"])


@pytest.mark.parametrize(
    "content",
    [job_template(), template("docker-gpu"), template("kubernetes-gpu")],
    ids=["process", "docker", "kubernetes"],
)
def test_every_run_gives_signs_of_life(content):
    env = defaults(content)["env"]
    assert env.items() >= RUN_ENVIRONMENT.items()
    assert int(env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) >= 30
    assert not [name for name in env if "PASSWORD" in name or "SECRET" in name]


def configure(kind, name):
    """Fill the template in, as the worker does; no server is asked for what it does not name."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        return asyncio.run(kind.from_template_and_values(template(name), {}))


def test_a_docker_run_asks_for_the_gpus():
    made = configure(DockerWorkerJobConfiguration, "docker-gpu")
    kwargs = made.container_create_kwargs
    assert kwargs is not None
    host = HostConfig(version="1.44", device_requests=kwargs["device_requests"])
    (request,) = host["DeviceRequests"]
    assert request["Driver"] == "nvidia"
    assert request["Capabilities"] == [["gpu"]]
    # All GPUs are seen and one is claimed: containers on one host share the folder of the locks.
    assert request["Count"] == -1
    assert "gpu-locks:/locks" in made.volumes
    assert made.env["GPU_LOCK_FOLDER"] == "/locks"


def test_a_kubernetes_run_asks_for_a_gpu():
    made = configure(KubernetesWorkerJobConfiguration, "kubernetes-gpu")
    pod = made.job_manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["image"] == "image-classification:local-gpu"
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {
        "/pipeline",
        "/repository",
    }
