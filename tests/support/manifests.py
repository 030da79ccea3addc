"""Manifests of Kubernetes and Azure ML against what takes them; and what Kubernetes makes of a container's words."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

SCHEMAS = Path(__file__).with_name("schemas")
KUBERNETES_VERSIONS = ("1.31", "1.35")
"""The oldest with a stable podFailurePolicy, and a new one."""
_OURS = {"MPIJob": "mpijob_v2beta1", "PyTorchJob": "pytorchjob_v1"}

Manifest = dict[str, Any]


def problems(document: Manifest, version: str) -> list[str]:
    """Return what an API server of that version, or Kubeflow's operator, finds wrong with a manifest."""
    kind = str(document.get("kind"))
    found = list(schema_problems(document, _OURS[kind])) if kind in _OURS else _kubernetes_problems(document, version)
    for template in templates(document) if kind in _OURS else ():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}
        found += _kubernetes_problems(pod, version)
    return found


def schema_problems(document: Manifest, name: str) -> Iterator[str]:
    """Yield what the schema `name` of this folder finds wrong."""
    for error in jsonschema.Draft202012Validator(_schema(name)).iter_errors(document):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


def crd_problems(document: Manifest, definition: Path) -> list[str]:
    """Return what the schema in a CustomResourceDefinition finds wrong; it lets unknown keys pass."""
    (resource,) = (part for part in yaml.safe_load_all(definition.read_text(encoding="utf-8")) if part)
    (version,) = (part for part in resource["spec"]["versions"] if document["apiVersion"].endswith(f"/{part['name']}"))
    validator = jsonschema.Draft202012Validator(version["schema"]["openAPIV3Schema"])
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(document)]


def pods(document: Manifest) -> list[Manifest]:
    """Return the `spec` of every kind of Pod in a manifest."""
    return [document["spec"]] if document["kind"] == "Pod" else [template["spec"] for template in templates(document)]


def templates(document: Manifest) -> list[Manifest]:
    """Return the Pod templates of a job; of Kubeflow's, one a kind of replica."""
    spec = document["spec"]
    replicas = spec.get("mpiReplicaSpecs") or spec.get("pytorchReplicaSpecs")
    if replicas is None:
        return [spec["template"]]
    return [replica["template"] for replica in replicas.values() if "spec" in replica.get("template", {})]


def words_of(container: Mapping[str, Any]) -> list[str]:
    """Return the command and arguments that Kubernetes starts.

    Source: the API reference of `Container.args`: $(NAME) becomes the value of a variable of the container, or stays as
    it is where there is none; $$ is a dollar sign.
    """
    variables = {entry["name"]: entry["value"] for entry in container.get("env", ())}

    def expanded(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    words = [*container.get("command", ()), *container.get("args", ())]
    return [re.sub(r"\$\$|\$\(([^)]*)\)", expanded, word) for word in words]


def _kubernetes_problems(document: Manifest, version: str) -> list[str]:
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


@cache
def _schema(name: str) -> Manifest:
    schema: Manifest = yaml.safe_load((SCHEMAS / f"{name}.yaml").read_text(encoding="utf-8"))
    return schema
