"""The examples of engines for the remote backend name what is there."""

import ast
from typing import Any

import pytest
import yaml

from detectors.export.serving_repos import MOUNTED
from tests.expressions import DEPLOY


def load(*path: str) -> Any:
    return yaml.safe_load(DEPLOY.joinpath("remote", *path).read_text(encoding="utf-8"))


def test_rays_configuration_names_the_application_and_its_arguments() -> None:
    (application,) = load("ray", "serve.yaml")["applications"]
    module, _, function = application["import_path"].partition(":")
    tree = ast.parse(DEPLOY.parent.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
    named = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert function in named
    fields = {node.target.id for node in named["Arguments"].body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    assert application["args"].keys() <= fields
    assert [deployment["name"] for deployment in application["deployments"]] == ["Model"]
    assert "Model" in named
    assert (DEPLOY.parent / application["args"]["model_folder"] / "manifest.json").is_file()


@pytest.mark.parametrize("folder", ["triton", "openvino-model-server"])
def test_a_compose_file_mounts_the_repository_where_the_export_says(folder: str) -> None:
    (service,) = load(folder, "compose.yaml")["services"].values()
    assert [volume.rsplit(":", 2)[1] for volume in service["volumes"]] == [MOUNTED]
    assert f"{MOUNTED}" in service["command"]
    assert service["ports"] == ["8000:8000"]


def test_kserve_speaks_the_second_version_of_the_protocol() -> None:
    model = load("kserve", "inferenceservice.yaml")["spec"]["predictor"]["model"]
    assert (model["protocolVersion"], model["runtime"]) == ("v2", "kserve-tritonserver")
