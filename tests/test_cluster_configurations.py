"""The files in cluster/: every key and type against the schemas of those who read them, and against our own code.

Ray's schema and readers come with Ray, EC2's and Compute Engine's API with their clients, the types of pods with
Kubernetes' client. No package carries KubeRay's CustomResourceDefinition: its fields are listed here from its reference
(v1.7), and the list itself is checked where the environment variable KUBERAY_CRD names the file ray.io_rayjobs.yaml.
"""

import copy
import importlib
import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from kubernetes import client as kubernetes
from packaging.requirements import Requirement
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli

from orchestrator.state.space import load_space
from tests.support.paths import ROOT

CLUSTER = ROOT / "cluster"
LAUNCHER_FILES = ("aws.yaml", "gcp.yaml")
PAGES = [*sorted(CLUSTER.iterdir()), ROOT / "docs" / "cluster.md", ROOT / "docs" / "security.md"]

# vCPUs and GPUs, from the vendors' tables of instance types.
MACHINES = {
    "m6i.xlarge": (4, 0),
    "g5.xlarge": (4, 1),
    "g5.12xlarge": (48, 4),
    "e2-standard-4": (4, 0),
    "g2-standard-4": (4, 1),
    "a2-highgpu-1g": (12, 1),
}

Change = Callable[[Any], object]


def read(name: str) -> Any:
    """The one document of a file in cluster/, or a RayJob among several."""
    documents = [each for each in yaml.safe_load_all((CLUSTER / name).read_text()) if each]
    return documents[-1]


# --- Ray's cluster launcher -------------------------------------------------------------------------------------------


def check_launcher(config: dict[str, Any]) -> None:
    """Check as `ray up` does, then each node's own configuration against the cloud's API."""
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    for kind in prepared["available_node_types"].values():
        faults = (ec2_faults if config["provider"]["type"] == "aws" else gce_faults)(kind["node_config"])
        assert not faults, faults


def ec2_api() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("ec2", "service-2"))


def ec2_faults(node_config: dict[str, Any]) -> str:
    api = ec2_api()
    assert node_config["InstanceType"] in api.shape_for("InstanceType").enum
    request = {**node_config, "MinCount": 1, "MaxCount": 1}
    report = ParamValidator().validate(request, api.operation_model("RunInstances").input_shape)
    return str(report.generate_report())


def gce_faults(node_config: dict[str, Any]) -> str:
    documents = files("googleapiclient.discovery_cache") / "documents"
    schemas = json.loads((documents / "compute.v1.json").read_text())["schemas"]
    return "\n".join(_discovery_faults(node_config, {"$ref": "Instance"}, schemas, "node_config"))


def _discovery_faults(value: Any, schema: dict[str, Any], schemas: dict[str, Any], where: str) -> Iterator[str]:
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    python = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": float}
    if not isinstance(value, python[schema["type"]]) and not (schema.get("format") == "int64" and type(value) is int):
        yield f"{where}: {value!r} is no {schema['type']}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    elif isinstance(value, dict):
        for key, inner in value.items():
            part = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if part is None:
                yield f"{where}: unknown key {key}"
            else:
                yield from _discovery_faults(inner, part, schemas, f"{where}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _discovery_faults(inner, schema["items"], schemas, f"{where}[]")


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_launcher_file_is_valid(name: str) -> None:
    check_launcher(read(name))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("aws.yaml", lambda c: c.update(idle_timeout_minute=5)),
        ("aws.yaml", lambda c: c.update(max_workers="10")),
        ("aws.yaml", lambda c: c["available_node_types"]["gpu_small"].update(max_worker=8)),
        ("aws.yaml", lambda c: c["available_node_types"]["gpu_small"]["resources"].update(GPU="1")),
        ("aws.yaml", lambda c: c["available_node_types"]["gpu_small"]["node_config"].update(InstanceTyp="g5.xlarge")),
        ("aws.yaml", lambda c: c["available_node_types"]["gpu_small"]["node_config"].update(InstanceType="g5.tiny")),
        ("aws.yaml", lambda c: c["available_node_types"]["head"]["node_config"].update(SecurityGroupIds="sg-1")),
        ("aws.yaml", lambda c: c.update(head_node_type="heads")),
        ("gcp.yaml", lambda c: c["available_node_types"]["gpu_small"]["node_config"].update(machineTyp="g2")),
        ("gcp.yaml", lambda c: c["available_node_types"]["gpu_small"]["node_config"].update(scheduling="SPOT")),
        ("gcp.yaml", lambda c: c["available_node_types"]["gpu_small"]["node_config"]["scheduling"].update(
            provisioningModel="CHEAP")),
        ("gcp.yaml", lambda c: c["auth"].update(ssh_usr="ubuntu")),
    ],
)  # fmt: skip
def test_launcher_file_with_a_fault_is_refused(name: str, change: Change) -> None:
    config = read(name)
    change(config)
    with pytest.raises((jsonschema.ValidationError, ValueError, AssertionError, KeyError)):
        check_launcher(config)


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_nodes_are_what_the_page_promises(name: str) -> None:
    """A head without work or GPU, spot workers of two sizes that start from none, and no more than machines have."""
    config = read(name)
    kinds = dict(config["available_node_types"])
    head = kinds.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0} and "InstanceMarketOptions" not in head["node_config"]
    assert len({kind["resources"]["GPU"] * kind["resources"]["CPU"] for kind in kinds.values()}) == len(kinds) == 2
    assert config["max_workers"] >= max(kind["max_workers"] for kind in kinds.values())
    for kind in [head, *kinds.values()]:
        machine = kind["node_config"].get("InstanceType") or kind["node_config"]["machineType"]
        cpus, gpus = MACHINES[machine]
        assert kind["resources"]["CPU"] <= cpus and kind["resources"].get("GPU", 0) == gpus
    for kind in kinds.values():
        assert kind["min_workers"] == 0
        spot = kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        assert spot or kind["node_config"]["scheduling"]["provisioningModel"] == "SPOT"


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_nodes_get_everything_that_the_package_is_made_of(name: str) -> None:
    home = "/home/ubuntu/mdatm-sweep/"
    mounts = {remote.removeprefix(home): local for remote, local in read(name)["file_mounts"].items() if home in remote}
    assert all(remote == local and (ROOT / local).exists() for remote, local in mounts.items())
    assert set(mounts) == packaged() == copied()


def packaged() -> set[str]:
    """What a build of the package reads, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wings = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return {*wings, "pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}


def copied() -> set[str]:
    """What the Dockerfile copies, which must be what its .dockerignore lets through."""
    lines = re.findall(r"^COPY --chown=sweep (.+)$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source for line in lines for source in line.split()[:-1]}
    allowed = re.findall(r"^!(.+)$", (CLUSTER / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert sources == set(allowed)
    return sources


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_ray_is_started_with_options_that_it_has_and_with_its_token(name: str) -> None:
    config = read(name)
    started = [
        command
        for place in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[place]
        if "ray start" in command
    ]
    assert len(started) == 2
    for command in started:
        assert "RAY_AUTH_MODE=token" in command
        arguments = shlex.split(command.partition("ray start")[2])
        given = ray_cli.commands["start"].make_context("start", arguments).params
        if given["head"]:
            assert given["num_cpus"] == 0 and given["dashboard_host"] == "127.0.0.1" and given["autoscaling_config"]


# --- KubeRay ----------------------------------------------------------------------------------------------------------

POD, TEXTS = "V1PodTemplateSpec", {str: str}
GROUP = {"rayStartParams!": TEXTS, "template!": POD, "resources": TEXTS, "labels": TEXTS}
# Key, with ! if it is required: a type, a set of words, a list of one, a mapping, or the name of a type of Kubernetes'.
RAY_JOB: dict[str, Any] = {
    "entrypoint": str,
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "submissionMode": {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"},
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "suspend": bool,
    "runtimeEnvYAML": str,
    "submitterPodTemplate": POD,
    "rayClusterSpec": {
        "rayVersion": str,
        "authOptions": {"mode": {"disabled", "token"}, "secretName": str},
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": {
            "version": {"v1", "v2"},
            "idleTimeoutSeconds": int,
            "upscalingMode": {"Default", "Aggressive", "Conservative"},
            "resources": "V1ResourceRequirements",
        },
        "headGroupSpec!": {**GROUP, "serviceType": str, "enableIngress": bool},
        "workerGroupSpecs": [
            {
                **GROUP,
                "groupName!": str,
                "replicas": int,
                "minReplicas!": int,
                "maxReplicas!": int,
                "numOfHosts": int,
                "idleTimeoutSeconds": int,
                "priority": int,
            }
        ],
    },
}


def faults(value: Any, rule: Any, where: str = "spec") -> Iterator[str]:
    """Where a value is not what a rule says."""
    if isinstance(rule, str):
        yield from kubernetes_faults(value, rule, where)
    elif isinstance(rule, set):
        if value not in rule:
            yield f"{where}: {value!r} is none of {sorted(rule)}"
    elif isinstance(rule, list) and isinstance(value, list):
        for number, inner in enumerate(value):
            yield from faults(inner, rule[0], f"{where}[{number}]")
    elif rule == TEXTS and isinstance(value, dict):
        yield from (f"{where}.{key}: {inner!r} is no text" for key, inner in value.items() if type(inner) is not str)
    elif isinstance(rule, dict) and isinstance(value, dict):
        rules = {key.rstrip("!"): inner for key, inner in rule.items()}
        yield from (f"{where}: {key[:-1]} is missing" for key in rule if key.endswith("!") and key[:-1] not in value)
        for key, inner in value.items():
            if key in rules:
                yield from faults(inner, rules[key], f"{where}.{key}")
            else:
                yield f"{where}: unknown key {key}"
    elif type(value) is not rule:
        yield f"{where}: {value!r} is no {rule}"


def kubernetes_faults(value: Any, name: str, where: str) -> Iterator[str]:
    """Where a value is not of a type of Kubernetes', as its own client has generated them."""
    if inner := re.fullmatch(r"List\[(.+)\]", name):
        if isinstance(value, list):
            for number, each in enumerate(value):
                yield from kubernetes_faults(each, inner[1], f"{where}[{number}]")
        else:
            yield f"{where}: {value!r} is no list"
    elif inner := re.fullmatch(r"Dict\[str, (.+)\]", name):
        for key, each in value.items():
            yield from kubernetes_faults(each, inner[1], f"{where}.{key}")
    elif hasattr(kubernetes, name):
        model = getattr(kubernetes, name)
        names = {wire: python for python, wire in model.attribute_map.items()}
        if not isinstance(value, dict):
            yield f"{where}: {value!r} is no {name}"
            return
        for key, each in value.items():
            if key in names:
                yield from kubernetes_faults(each, model.openapi_types[names[key]], f"{where}.{key}")
            else:
                yield f"{where}: unknown key {key} of {name}"
        try:
            model(**{names[key]: each for key, each in value.items() if key in names})
        except ValueError as error:  # something required is missing
            yield f"{where}: {error}"
    elif name != "object" and type(value).__name__ != name:
        yield f"{where}: {value!r} is no {name}"


def check_job(job: dict[str, Any]) -> dict[str, Any]:
    """Check a RayJob and return what Ray's autoscaler makes of it."""
    found = [*faults(job["spec"], RAY_JOB), *kubernetes_faults(job["metadata"], "V1ObjectMeta", "metadata")]
    assert not found, found
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob") and len(job) == 4
    cluster = {"metadata": {"name": "a", "namespace": "b"}, "spec": job["spec"]["rayClusterSpec"]}
    return dict(_derive_autoscaling_config_from_ray_cr(cluster))


def test_ray_job_is_valid_and_read_by_ray_as_it_is_meant() -> None:
    read_by_ray = check_job(read("kuberay-rayjob.yaml"))
    assert read_by_ray["idle_timeout_minutes"] == 10
    kinds = read_by_ray["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0 and "GPU" not in kinds["headgroup"]["resources"]
    for name in ("gpu-small", "gpu-large"):
        assert kinds[name]["min_workers"] == 0 and kinds[name]["max_workers"] > 0
        assert kinds[name]["resources"]["GPU"] == 1 and kinds[name]["resources"]["CPU"] >= 1


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(backoffLimits=3),
        lambda spec: spec.update(backoffLimit="3"),
        lambda spec: spec.update(submissionMode="K8sJob"),
        lambda spec: spec["rayClusterSpec"]["authOptions"].update(mode="tokens"),
        lambda spec: spec["rayClusterSpec"].update(enableInTreeAutoscaling="true"),
        lambda spec: spec["rayClusterSpec"]["autoscalerOptions"].update(idleTimeoutSecond=60),
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0].update(minReplicas="0"),
        lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0].pop("minReplicas"),
        lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"].update(nodeSelectors={}),
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0].pop("name"),
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0].update(
            volumeMounts={"name": "shared"}
        ),
    ],
)
def test_ray_job_with_a_fault_is_refused(change: Change) -> None:
    job = read("kuberay-rayjob.yaml")
    change(job["spec"])
    with pytest.raises(AssertionError):
        check_job(job)


def test_the_claim_is_valid_and_is_what_the_nodes_mount() -> None:
    claim, job = yaml.safe_load_all((CLUSTER / "kuberay-rayjob.yaml").read_text())
    assert list(kubernetes_faults(claim, "V1PersistentVolumeClaim", "claim")) == []
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    spec = job["spec"]["rayClusterSpec"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        (volume,) = group["template"]["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (container,) = group["template"]["spec"]["containers"]
        assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/shared"}]


def test_ray_job_can_be_repeated_and_does_not_stay() -> None:
    spec = read("kuberay-rayjob.yaml")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True and spec["backoffLimit"] > 0
    assert "--name " in spec["entrypoint"] and "--address auto" in spec["entrypoint"]
    assert spec["rayClusterSpec"]["authOptions"]["mode"] == "token"


def crd_schema() -> dict[str, Any]:
    """KubeRay's own schema of a RayJob's `spec`, with every mapping closed as the API server closes it."""
    place = os.environ.get("KUBERAY_CRD")
    if not place:
        pytest.skip("KUBERAY_CRD does not name KubeRay's ray.io_rayjobs.yaml")
    versions = yaml.safe_load(Path(place).read_text())["spec"]["versions"]
    (schema,) = (each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1")

    def close(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("properties"), dict) and not part.get("x-kubernetes-preserve-unknown-fields"):
                part.setdefault("additionalProperties", False)
            for inner in part.values():
                close(inner)

    spec = schema["properties"]["spec"]
    close(spec)
    return dict(spec)


def test_ray_job_against_the_custom_resource_definition() -> None:
    schema = crd_schema()
    spec = read("kuberay-rayjob.yaml")["spec"]
    jsonschema.validate(spec, schema)
    spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(jsonschema.ValidationError, match="volumeMount"):
        jsonschema.validate(spec, schema)


def test_the_list_of_fields_against_the_custom_resource_definition() -> None:
    words = {str: "string", int: "integer", bool: "boolean"}

    def compare(rule: Any, schema: dict[str, Any], where: str) -> None:
        if isinstance(rule, list):
            compare(rule[0], schema["items"], f"{where}[]")
        elif isinstance(rule, dict) and rule != TEXTS:
            required = {key[:-1] for key in rule if key.endswith("!")} - {
                "rayStartParams"
            }  # the CRD lets that be absent
            assert required == set(schema.get("required", [])) - {"rayStartParams"}, where
            for key, inner in rule.items():
                compare(inner, schema["properties"][key.rstrip("!")], f"{where}.{key}")
        elif isinstance(rule, set):
            assert schema["type"] == "string" and rule == set(schema.get("enum", rule)), where
        elif isinstance(rule, type):
            assert schema["type"] == words[rule], where

    compare(RAY_JOB, crd_schema(), "spec")


# --- All of them ------------------------------------------------------------------------------------------------------


def test_one_version_of_ray_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (pin,) = (Requirement(each) for each in project["project"]["dependencies"] if each.startswith("ray["))
    named = {
        name: re.findall(r'ray\[default\]==([\d.]+)|rayVersion: "([\d.]+)"', (CLUSTER / name).read_text())
        for name in (*LAUNCHER_FILES, "Dockerfile", "kuberay-rayjob.yaml")
    }
    assert all(len(found) == 1 for found in named.values()), named
    versions = {"".join(found[0]) for found in named.values()}
    assert versions == {version("ray")}
    assert pin.specifier.contains(version("ray"))


def test_one_version_of_python_everywhere() -> None:
    text = {name: (CLUSTER / name).read_text() for name in (*LAUNCHER_FILES, "Dockerfile")}
    assert all("--python 3.11" in text[name] for name in LAUNCHER_FILES)
    assert "FROM python:3.11-slim\n" in text["Dockerfile"] and "USER sweep" in text["Dockerfile"]


OURS = r"python -m orchestrator\.\w+"
RAYS = r"ray (?:up|down|exec|attach|dashboard|start|rsync-up|rsync-down|get-auth-token)"


def commands(start: str) -> list[Any]:
    """The command lines that begin so, in the files and pages about clusters: on their own, quoted, and inline."""
    found = []
    for page in PAGES:
        text = page.read_text()
        if page.name == "kuberay-rayjob.yaml":
            text = re.sub(r"(?s)entrypoint: >-.*?(?=\n  #)", "", text) + "\n" + read(page.name)["spec"]["entrypoint"]
        lines = re.findall(rf"(?m)^[ #]*(?:[A-Z_]+=\S+ )*(?:uv run )?({start}(?: .+)?)$", text)
        lines += re.findall(rf"'({start} [^']+)'", text) + re.findall(rf"`(?:uv run )?({start} [^`]+)`", text)
        found += [pytest.param(line, id=f"{page.name}: {line[:60]}") for line in lines]
    return found


@pytest.mark.parametrize("line", commands(OURS))
def test_our_own_commands_have_the_options_that_the_pages_give_them(line: str) -> None:
    _, _, module, *arguments = shlex.split(line, comments=True)
    given = importlib.import_module(module).main.make_context(module, arguments).params
    if "space_name" in given:  # and the space takes what is overridden
        load_space(given["space_name"], given["overrides"], None, expert_count=given["experts"], trials=given["trials"])


@pytest.mark.parametrize("line", commands(RAYS))
def test_rays_commands_have_the_options_that_the_pages_give_them(line: str) -> None:
    _, name, *arguments = shlex.split(line, comments=True)
    ray_cli.commands[name].make_context(name, arguments)


def test_pages_hold_commands_at_all() -> None:
    assert len(commands(OURS)) >= 4
    assert len(commands(RAYS)) >= 6
