"""What stands beside the code (workflow, hooks, containers, cluster, citation, forms) parses, and says what is so."""

import json
import re
import tomllib

import pytest
import yaml
from conftest import ROOT

from lit_fm import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DEVCONTAINERS = sorted((ROOT / ".devcontainer").rglob("*.json"))
SERVICE, JOB = yaml.safe_load((ROOT / "configs/cluster/kubernetes.yaml").read_text())["items"]
POD = JOB["spec"]["template"]["spec"]
COMMAND = POD["containers"][0]["command"]


def read(name):
    return (ROOT / name).read_text()


def test_the_workflow_runs_the_makefile_s_targets():
    known = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    asked = WORKFLOW["jobs"]["make"]["strategy"]["matrix"]["target"]
    assert {"lint", "test", "test-slow", "docs"} <= set(asked) <= known
    assert any(step.get("run") == "make ${{ matrix.target }}" for step in WORKFLOW["jobs"]["make"]["steps"])


def test_the_workflow_may_only_read_and_its_actions_are_pinned():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "secrets." not in read(".github/workflows/ci.yml")
    for job in WORKFLOW["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 120
    used = re.findall(r"uses: (.*)", read(".github/workflows/ci.yml"))
    assert len(used) >= 3
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action) for action in used)


def test_hooks_check_what_lint_checks_with_the_same_versions():
    hooks = {
        hook["id"]: (repo.get("rev"), hook)
        for repo in yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
        for hook in repo["hooks"]
    }
    assert {"ruff-check", "ruff-format", "mypy", "trailing-whitespace", "check-added-large-files"} <= set(hooks)
    assert hooks["ruff-check"][0] == f"v{PINS['ruff']}"
    large = hooks["check-added-large-files"][1]
    limit = 1024 * int(large["args"][0].removeprefix("--maxkb="))
    too_large = {
        f.relative_to(ROOT).as_posix() for f in (ROOT / "zoo").rglob("*") if f.is_file() and f.stat().st_size > limit
    }
    assert too_large
    assert all(re.search(large["exclude"], name) for name in too_large)


def test_one_version_of_uv_is_used_everywhere():
    named = [
        text
        for path in (ROOT / "Dockerfile", ROOT / ".github/workflows/ci.yml", *DEVCONTAINERS)
        for text in re.findall(r"uv==([\d.]+)", path.read_text())
    ]
    assert len(named) == 4
    assert len(set(named)) == 1


def test_the_image_has_all_that_the_package_is_built_from():
    copied = {name for line in re.findall(r"^COPY (.*)", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    wheel = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {
        PROJECT["readme"],
        *PROJECT["license-files"],
        *wheel["packages"],
        *wheel["force-include"],
        "constraints.txt",
    } <= copied
    ignored, *kept = [line for line in read(".dockerignore").splitlines() if not line.startswith("#")]
    assert ignored == "*"
    assert {line.removeprefix("!") for line in kept if line.startswith("!")} == copied


def test_the_image_is_of_nobody_who_is_root_and_holds_no_secret():
    *_, last = DOCKERFILE.split("\nFROM ")
    users = re.findall(r"^USER (.*)", last, re.MULTILINE)
    assert users == ["lit"]
    assert last.index("USER lit") < last.index("ENTRYPOINT")
    assert json.loads(re.search(r"^ENTRYPOINT (.*)", last, re.MULTILINE)[1]) == ["python", "-m", "lit_fm"]
    assert re.findall(r"^ARG (.*)", DOCKERFILE, re.MULTILINE) == ["TORCH=cpu"]
    assert not re.findall(r"^ENV .*(?:TOKEN|KEY|SECRET|PASSWORD)", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("path", DEVCONTAINERS, ids=lambda path: path.parent.name)
def test_a_dev_container_is_built_from_the_dockerfile_and_installs_by_make(path):
    said = json.loads(path.read_text())
    assert (path.parent / said["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (path.parent / said["build"]["context"]).resolve() == ROOT
    assert f" AS {said['build']['target']}\n" in DOCKERFILE
    assert said["postCreateCommand"].endswith("make install")
    assert said["containerEnv"]["INSTALL"] == WORKFLOW["env"]["INSTALL"]
    assert ("--gpus" in said.get("runArgs", [])) == (path.parent.name == "cuda")


def test_the_job_s_command_is_understood_and_its_numbers_agree(lit):
    from torch.distributed.run import get_args_parser

    known = get_args_parser().parse_args(COMMAND[1:])
    assert (COMMAND[0], known.module, known.training_script) == ("torchrun", True, "lit_fm")
    verb, *options = known.training_script_args
    done = lit(verb, *options, "--print_config")
    assert done.code == 0, done.err
    trainer = yaml.safe_load(done.out)["trainer"]
    pods, each = JOB["spec"]["completions"], POD["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert str(pods) == known.nnodes
    assert pods == JOB["spec"]["parallelism"] == trainer["num_nodes"]
    assert str(each) == known.nproc_per_node
    assert str(each) == str(trainer["devices"])


def test_the_job_s_pods_find_each_other_and_have_time_to_save():
    name = JOB["metadata"]["name"]
    assert JOB["spec"]["completionMode"] == "Indexed"  # so that pods have names
    assert f"--rdzv_endpoint={name}-0.{POD['subdomain']}:29500" in COMMAND
    assert POD["subdomain"] == SERVICE["metadata"]["name"]
    assert SERVICE["spec"]["selector"] == {"job-name": name}
    waits = {one["name"]: one["value"] for one in POD["containers"][0]["env"]}["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]
    assert POD["terminationGracePeriodSeconds"] > int(waits) > 30
    assert POD["securityContext"]["runAsNonRoot"]


def test_citation_changelog_and_package_tell_one_version_and_licence():
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["cff-version"] == "1.2.0"
    assert cited["authors"]
    assert (str(cited["version"]), cited["license"]) == (__version__, PROJECT["license"])
    titles = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert titles[:2] == ["Unreleased", __version__]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_a_form_has_questions_with_names(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    assert all(item["attributes"]["label"] for item in form["body"])
    names = [item["id"] for item in form["body"]]
    assert len(names) == len(set(names)) > 1


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_commands_and_files_that_a_page_names_are_there(page):
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    text = read(page)
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    assert all((ROOT / name).exists() for name in re.findall(r"`([\w/.]+(?:\.md|\.txt|/))`", text))
