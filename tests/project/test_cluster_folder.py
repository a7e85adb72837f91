"""What lies in cluster/ is valid by other people's rules, and its pages name what exists."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import typer
import yaml
from slurm_server import Slurm, missing, slurm_server, wait

from tilesseg.cli.main import app
from tilesseg.formats.geotiff.writer import utm_grid, write_image
from tilesseg.monitoring.dashboard.prometheus_metrics import COUNTERS, GAUGES
from tilesseg.monitoring.live.scene_board import STATES
from tilesseg.planning.cluster_options import Cluster
from tilesseg.planning.job import parse_job, read_job
from tilesseg.planning.yaml_file import read_yaml
from tilesseg.raster.window import Window
from tilesseg.run.run_job import run_job
from tilesseg.training.synthetic_landscape import BANDS, NODATA, landscape

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "cluster"
PLACES = ("docker", "kubernetes", "local", "pbs", "prometheus", "slurm", "ssh")
CLUSTERS = [
    *(FOLDER / name for name in ("local/cpu.yaml", "local/gpu.yaml", "ssh/hosts.yaml", "pbs/workers.yaml")),
    *(FOLDER / "slurm" / name for name in ("cpu.yaml", "gpu.yaml")),
]
JOBS = sorted(FOLDER.rglob("*job.yaml"))
WRITTEN_LATER = "cluster.yaml"
"""The cluster file that one-allocation.sbatch writes when it knows the address."""
ELSEWHERE = {WRITTEN_LATER, "address.yaml", "operator.yaml"}
"""What pages may name although it is no file: it is written later, or a key of the ConfigMap."""
SCRIPTS = sorted(path for suffix in ("sh", "sbatch", "pbs") for path in FOLDER.rglob(f"*.{suffix}"))
MANIFESTS = sorted(path for path in (FOLDER / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
OPERATOR = ("kubernetes.dask.org/v1", "monitoring.coreos.com/v1")
"""What is not Kubernetes' own; the former has a schema in dask-kubernetes."""
DOCKERFILES = [FOLDER / "docker" / name for name in ("Dockerfile", "Dockerfile.cuda")]
DASHBOARD = FOLDER / "prometheus" / "grafana" / "dashboard.json"
PAGES = [*(FOLDER / place / "README.md" for place in PLACES), CHECKOUT / "docs" / "how-to" / "cluster-files.md"]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
Commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def named(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def need(program: str, package: str) -> str:
    """Where a program of Debian lies, or skip."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program}; it is in the Debian package {package}")
    return found


def say(*command: str | Path) -> str:
    """Run a checker that must be content; what it says."""
    done = subprocess.run(list(map(str, command)), cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def objects() -> Iterator[tuple[Path, dict[str, Any]]]:
    return ((path, one) for path in MANIFESTS for one in documents(path))


def object_of(kind: str, file: str) -> dict[str, Any]:
    return next(one for one in documents(FOLDER / "kubernetes" / file) if one["kind"] == kind)


@pytest.mark.parametrize("path", CLUSTERS, ids=named)
def test_every_cluster_file_is_a_section_cluster(path: Path) -> None:
    cluster = Cluster.model_validate(read_yaml(path, "cluster file"))
    assert cluster.kind == {"local": "local"}.get(path.parent.name, path.parent.name)
    assert cluster.device == ("cuda" if path.name == "gpu.yaml" else "cpu")


@pytest.mark.parametrize("path", JOBS, ids=named)
def test_every_job_file_is_a_job(path: Path, tmp_path: Path) -> None:
    shutil.copytree(path.parent, tmp_path / "copy")
    (tmp_path / "copy" / WRITTEN_LATER).write_text("{kind: address, address: 'tcp://node1:8786'}\n")
    assert read_job(tmp_path / "copy" / path.name).model == "landscape"


def test_workers_of_a_queue_leave_before_their_wall_time() -> None:
    for path in CLUSTERS:
        cluster = read_yaml(path, "cluster file")
        assert ("lifetime" in cluster) == ("walltime" in cluster), path
        assert cluster.get("cores") == (cluster["engine_threads"] if "cores" in cluster else None), path


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_scripts_are_bash(path: Path) -> None:
    say("bash", "-n", path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/bash\n") and "\nset -euo pipefail\n" in text


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_shellcheck_has_nothing_to_say_of_scripts(path: Path) -> None:
    say(need("shellcheck", "shellcheck"), "--shell=bash", path)


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_scripts_call_tilesseg_with_options_that_exist(path: Path) -> None:
    for line in re.findall(r"^[^#\n]*?\btilesseg (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        assert_known(line)


def assert_known(line: str) -> None:
    """Whether what follows `tilesseg` is a command and its options."""
    command = line.split()[0]
    assert command in {*Commands, "--help", "--version"}, f"tilesseg {line}"
    options = {name for one in Commands[command].params for name in one.opts} if command in Commands else set()
    assert set(OPTION.findall(line)) <= options | {"--help", "--version"}, f"tilesseg {line}"


@pytest.mark.parametrize(
    ("script", "variables"),
    [
        ("slurm/job-array.sbatch", {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3"}),
        ("pbs/job-array.pbs", {"PBS_ARRAY_INDEX": "2", "PARTS": "3", "JOB": "a job.yaml", "PBS_O_WORKDIR": "."}),
    ],
)
def test_an_element_of_an_array_does_its_share(script: str, variables: dict[str, str], tmp_path: Path) -> None:
    fake = tmp_path / "tilesseg"
    fake.write_text('#!/bin/bash\nprintf "%s|" "$@"\n')
    fake.chmod(0o755)
    command = ["bash", str(FOLDER / script), "a job.yaml"]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **variables}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "run|a job.yaml|--part|2/3|", done.stderr


@pytest.mark.parametrize("path", MANIFESTS, ids=named)
def test_kubernetes_own_objects_pass_its_schemas(path: Path) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for one in documents(path):
        if one["apiVersion"] not in OPERATOR:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("file", ["daskcluster-cpu.yaml", "daskcluster-gpu.yaml"])
def test_dask_clusters_pass_the_schema_of_the_operator(file: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = operator_schema()
    every = {key: {} for key in ("apiVersion", "kind", "metadata")}  # what every object has is in no such schema
    jsonschema.validate(object_of("DaskCluster", file), closed(schema | {"properties": every | schema["properties"]}))


def operator_schema() -> dict[str, Any]:
    """The schema of DaskCluster that dask-kubernetes ships."""
    found = importlib.util.find_spec("dask_kubernetes")
    if found is None or found.origin is None:
        pytest.skip("needs extra kubernetes")
    charts = Path(found.origin).parent / "operator" / "deployment" / "helm" / "dask-kubernetes-operator"
    (version,) = documents(charts / "crds" / "daskcluster.yaml")[0]["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def closed(schema: Any) -> Any:
    """The same schema, refusing keys it does not list: an API server drops them without a word."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


def test_pods_of_dask_clusters_pass_the_schemas_of_kubernetes() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for file in ("daskcluster-cpu.yaml", "daskcluster-gpu.yaml"):
        spec = object_of("DaskCluster", file)["spec"]
        for part in ("scheduler", "worker"):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": part}, "spec": spec[part]["spec"]}
            kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_the_two_dask_clusters_differ_only_in_their_device() -> None:
    cpu, gpu = (object_of("DaskCluster", f"daskcluster-{device}.yaml")["spec"] for device in ("cpu", "gpu"))
    worker, other = (spec["worker"]["spec"]["containers"][0] for spec in (cpu, gpu))
    assert other["resources"]["limits"]["nvidia.com/gpu"] == "1" and "nvidia.com/gpu" not in str(worker)
    assert {k: v for k, v in worker.items() if k not in ("image", "resources")} == {
        k: v for k, v in other.items() if k not in ("image", "resources")
    }
    assert {"name": "GDAL_CACHEMAX", "value": "64"} in worker["env"]


def test_what_a_pod_mounts_and_runs_as_is_there() -> None:
    there = {(one["kind"], one["metadata"]["name"]) for _, one in objects()}
    for _, one in objects():
        text = json.dumps(one)
        for claim in re.findall(r'"claimName": "([^"]+)"', text):
            assert ("PersistentVolumeClaim", claim) in there
        for account in re.findall(r'"serviceAccountName": "([^"]+)"', text):
            assert ("ServiceAccount", account) in there
        assert one["metadata"].get("namespace", "tilesseg") == "tilesseg"


def test_the_driver_reaches_the_service_of_the_dask_cluster() -> None:
    cluster = object_of("DaskCluster", "daskcluster-cpu.yaml")
    ports = {port["name"]: port["port"] for port in cluster["spec"]["scheduler"]["service"]["ports"]}
    files = object_of("ConfigMap", "configmap.yaml")["data"]
    address = Cluster.model_validate(yaml.safe_load(files["address.yaml"])).address
    assert address == f"tcp://{cluster['metadata']['name']}-scheduler:{ports['tcp-comm']}"
    assert object_of("Job", "driver.yaml")["spec"]["template"]["spec"]["containers"][0]["args"][2] == "/job/job.yaml"


def test_the_config_map_holds_a_job_and_its_clusters() -> None:
    files = {name: yaml.safe_load(text) for name, text in object_of("ConfigMap", "configmap.yaml")["data"].items()}
    job = files.pop("job.yaml")
    assert set(files) == {"address.yaml", "operator.yaml"} and job["cluster"] in files
    for cluster in files.values():
        parse_job({**job, "cluster": cluster}, where="job.yaml")


def test_the_role_gives_no_rights_on_secrets_nor_on_everything() -> None:
    for _, one in objects():
        assert one["kind"] not in ("ClusterRole", "ClusterRoleBinding")
        for rule in one.get("rules", []):
            assert not {"*", "secrets", "pods/exec"} & {*rule["resources"], *rule["verbs"], *rule["apiGroups"]}


def test_the_kustomization_names_files_that_are_there() -> None:
    (kustomization,) = documents(FOLDER / "kubernetes" / "kustomization.yaml")
    assert all((FOLDER / "kubernetes" / name).is_file() for name in kustomization["resources"])


@pytest.mark.parametrize("path", DOCKERFILES, ids=named)
def test_hadolint_has_nothing_to_say_of_dockerfiles(path: Path) -> None:
    program = Path(sys.executable).parent / "hadolint"
    if not program.exists():
        pytest.skip("no hadolint; it is in extra test")
    say(program, "--failure-threshold=style", path)


@pytest.mark.parametrize("path", DOCKERFILES, ids=named)
def test_images_run_as_nobody_in_particular_and_copy_what_travels_to_the_builder(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000"]
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    taken = {name for names in copied for name in names}
    ignored = path.with_name(f"{path.name}.dockerignore").read_text(encoding="utf-8").splitlines()
    assert taken == {line[1:] for line in ignored if line.startswith("!")}
    assert all((CHECKOUT / name).exists() for name in taken)
    extras = next(line.partition('"')[2].rstrip('"') for line in lines if line.startswith("ARG EXTRAS="))
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras.split(","))


def test_the_two_images_are_built_alike() -> None:
    cpu, cuda = (path.read_text(encoding="utf-8") for path in DOCKERFILES)
    runs = [re.findall(r"^(?:RUN|COPY|FROM|USER|ENTRYPOINT) .*$", text, re.MULTILINE) for text in (cpu, cuda)]
    assert runs[0] == runs[1]


def test_services_of_the_composition_mount_files_that_are_there() -> None:
    folder = FOLDER / "docker"
    (composition,) = documents(folder / "docker-compose.yaml")
    services = composition["services"]
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (folder / source).exists(), volume
        assert set(service.get("depends_on", [])) <= set(services)
    assert services["worker"]["deploy"]["replicas"] == 2


def test_prometheus_takes_its_configurations_and_rules() -> None:
    program = need("promtool", "prometheus")
    for file in ("prometheus/prometheus.yml", "docker/prometheus.yml"):
        say(program, "check", "config", FOLDER / file)
        (config,) = documents(FOLDER / file)
        assert all(one["honor_labels"] for one in config["scrape_configs"]), "the label job would be renamed"
    say(program, "check", "rules", FOLDER / "prometheus" / "alerts.yml")


def test_alerts_fire_when_they_should_and_at_no_other_time() -> None:
    program = need("promtool", "prometheus")
    say(program, "test", "rules", FOLDER / "prometheus" / "alerts_test.yml")


def expressions() -> list[str]:
    """What the dashboard and the alerts ask Prometheus for, Grafana's variables filled in."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    drawn = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    (rules,) = documents(FOLDER / "prometheus" / "alerts.yml")
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return [*(one.replace("$job", ".*").replace("$__rate_interval", "5m") for one in drawn), *asked]


def test_every_expression_is_promql(tmp_path: Path) -> None:
    program = need("promtool", "prometheus")
    rules = [{"record": f"drawn:number_{n}", "expr": one} for n, one in enumerate(expressions())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "drawn", "rules": rules}]}))
    assert f"{len(rules)} rules found" in say(program, "check", "rules", tmp_path / "rules.yml")


def known_metrics() -> set[str]:
    """Names in our part of /metrics, and in Dask's, which builds them from words in its sources."""
    ours = {row[0] for row in GAUGES} | {f"{row[0]}_total" for row in COUNTERS}
    dask = set()
    for part in ("scheduler", "worker"):
        found = importlib.util.find_spec(f"distributed.http.{part}.prometheus.core")
        assert found is not None and found.origin is not None
        words = re.findall(r'build_name\("(\w+)"\)', Path(found.origin).read_text(encoding="utf-8"))
        dask |= {f"dask_{part}_{word}" for word in words}
    return ours | dask


def test_every_metric_that_is_asked_for_exists_and_ours_are_all_drawn() -> None:
    asked = {name for one in expressions() for name in re.findall(r"\b(?:tilesseg|dask)_\w+", one)}
    assert asked <= known_metrics()
    board = DASHBOARD.read_text(encoding="utf-8")
    assert [row[0] for row in (*GAUGES, *COUNTERS) if row[0] not in board] == []


def test_states_that_are_asked_for_exist() -> None:
    from tilesseg.monitoring.live.run_board import RunBoard

    tiles, scenes = set(STATES), set(RunBoard("run").scene_counts())
    for one in expressions():
        for metric, states in re.findall(r'tilesseg_(tiles|scenes)\{[^}]*state=~?"([^"]+)"', one):
            assert set(states.split("|")) <= (tiles if metric == "tiles" else scenes), one


def test_panels_of_the_dashboard_have_their_places_and_numbers() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    cells = [
        (x, y)
        for box in (panel["gridPos"] for panel in panels)
        for x in range(box["x"], box["x"] + box["w"])
        for y in range(box["y"], box["y"] + box["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_pages_name_files_that_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`([\w.-]+(?:/[\w.-]+)*\.(?:yaml|yml|sbatch|sh|pbs|json|cuda))`", text):
        assert name in ELSEWHERE or (page.parent / name).exists() or (FOLDER / name).exists(), name
    for target in re.findall(r"\]\(([^)\s#]+)", text):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_pages_call_tilesseg_with_options_that_exist(page: Path) -> None:
    for line in re.findall(r"(?:^\$ |`|-- )tilesseg ([a-z-][^`\n]*)", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert_known(line)


def test_every_file_is_named_on_its_page() -> None:
    for place in PLACES:
        folder, page = FOLDER / place, (FOLDER / place / "README.md").read_text(encoding="utf-8")
        unnamed = [path.name for path in folder.rglob("*") if path.is_file() and path.name not in page]
        assert set(unnamed) <= {"README.md"}, place


@pytest.mark.parametrize("place", PLACES)
def test_every_page_says_first_what_was_run(place: str) -> None:
    head = (FOLDER / place / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    assert "**Run:**" in head and "**Not run:**" in head


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    with slurm_server(tmp_path_factory.mktemp("slurm") / "server") as server:
        path = f"{Path(sys.executable).parent}{os.pathsep}{server.environment['PATH']}"
        server.environment.update(PATH=path, DEVICE="cpu")
        yield server


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with a scene of four tiles, and the mask that serial work gives."""
    folder = tmp_path_factory.mktemp("scene")
    make_image(folder / "scene-1.tif", size=1100)
    data = yaml.safe_load((FOLDER / "slurm" / "array-job.yaml").read_text(encoding="utf-8"))
    cluster = {**data["cluster"], "kind": "serial"}
    asked = {"scenes": str(folder / "scene-1.tif"), "output": {**data["output"], "dir": str(folder / "run")}}
    assert run_job(parse_job({**data, **asked, "cluster": cluster}, where="job")).exit_code == 0
    return folder, mask_of(folder)


def make_image(path: Path, *, size: int) -> None:
    grid = utm_grid((size, size), resolution=10.0)
    rows = [landscape((size, size), 1, window=Window(0, 0, size, size)).bands]
    write_image(path, grid=grid, rows=rows, names=BANDS, dtype="uint16", nodata=NODATA)


def mask_of(folder: Path) -> Any:
    (product,) = (folder / "run").glob("scenes/*/*.tif")
    with rasterio.open(product) as mask:
        return mask.read(1)


def laid_out(folder: Path, scene: Path) -> Path:
    """The files of cluster/slurm in a folder of their own, with the scene."""
    shutil.copytree(FOLDER / "slurm", folder)
    shutil.copytree(scene, folder / "demo", ignore=lambda *_: ["run"])
    return folder


def submit(slurm: Slurm, folder: Path, *command: str) -> str:
    """Order jobs from a folder and wait for all of them; what they printed."""
    subprocess.run(command, cwd=folder, env=slurm.environment, check=True, capture_output=True)
    wait(lambda: not slurm.jobs(), "an empty queue", slurm, seconds=420)
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.log")))


@pytest.mark.slow
@pytest.mark.cluster
def test_a_job_array_on_a_real_slurm_gives_the_mask_of_serial_work(
    slurm: Slurm, scene: tuple[Path, Any], tmp_path: Path
) -> None:
    folder = laid_out(tmp_path / "work", scene[0])
    said = submit(slurm, folder, "bash", "job-array.sh", "array-job.yaml", "--time=00:10:00")
    assert "4 of 4 tiles done" in said, said
    assert len(list(folder.glob("tilesseg-array-*.log"))) == 4
    assert np.array_equal(mask_of(folder), scene[1]), said


@pytest.mark.slow
@pytest.mark.cluster
def test_one_allocation_on_a_real_slurm_gives_the_mask_of_serial_work(
    slurm: Slurm, scene: tuple[Path, Any], tmp_path: Path
) -> None:
    folder = laid_out(tmp_path / "work", scene[0])
    script = folder / "one-allocation.sbatch"
    fitted = script.read_text(encoding="utf-8")
    for line, here in {
        "--nodes=2": "--nodes=1",
        "--ntasks-per-node=4": "--ntasks-per-node=2",
        "--cpus-per-task=8": "--cpus-per-task=4",
        "--mem-per-cpu=4G": "--mem-per-cpu=1G",
        "#SBATCH --gpus-per-task=1\n": "",
        "--time=02:00:00": "--time=00:10:00",
    }.items():
        assert line in fitted
        fitted = fitted.replace(line, here)
    script.write_text(fitted, encoding="utf-8")
    said = submit(slurm, folder, "sbatch", script.name, "one-allocation-job.yaml")
    assert "4 of 4 tiles done" in said, said
    assert np.array_equal(mask_of(folder), scene[1]), said
    assert not list(folder.glob("dask-*")), "the folder of the scheduler file is left"
