"""MODEL references, the known models, and what is refused before anything is loaded."""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import threading

import numpy as np
import pytest
import yaml

from tilesseg.errors import ModelError
from tilesseg.models import bundle
from tilesseg.models import load as models
from tilesseg.models.bundle import find_bundle, list_models, verify_weights
from tilesseg.models.load import ENGINES, load_model
from tilesseg.models.runtime_choice import KINDS
from tilesseg.models.spec import ModelSpec

PARAMETERS = b"not really parameters"


def spec_data(**changes):
    data = {
        "name": "blank",
        "licence": "MIT",
        "engine": "onnx",
        "weights": {"file": "net.onnx", "sha256": hashlib.sha256(PARAMETERS).hexdigest()},
        "bands": ["red", "green"],
        "input_range": [0, 255],
        "normalise": {"kind": "none"},
        "classes": [{"name": "no", "colour": "black"}, {"name": "yes", "colour": "white"}],
    }
    return {key: value for key, value in (data | changes).items() if value is not None}


def make_bundle(folder, spec_file="model.yaml", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    data = spec_data(**changes)
    (folder / spec_file).write_text(yaml.safe_dump(data))
    if "weights" in data and "package" not in data["weights"]:
        (folder / data["weights"]["file"]).write_bytes(PARAMETERS)
    return folder


class OneClass:
    """An engine that is code alone."""

    device = "cpu"

    def __init__(self, spec, weights, *, device, threads):
        self.spec, self.weights, self.threads = spec, weights, threads

    def predict(self, patches):
        return np.zeros((len(patches), self.spec.score_channels, *patches.shape[2:]), np.float32)


class Narrow(OneClass):
    def predict(self, patches):
        return super().predict(patches)[:, :1, 1:-1, 1:-1]


@pytest.fixture(autouse=True)
def no_models_from_outside(monkeypatch, tmp_path):
    monkeypatch.delenv("TILESSEG_MODELS", raising=False)
    monkeypatch.setenv("TILESSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server(tmp_path):
    """A loopback web server over `tmp_path/www`; gives its address and the list of paths asked for."""
    asked = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    (tmp_path / "www").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", asked
        httpd.shutdown()
        thread.join()


def refusal(reference, **options):
    with pytest.raises(ModelError) as caught:
        find_bundle(reference, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_its_spec_and_its_weights_file_name_the_same_bundle(tmp_path):
    folder = make_bundle(tmp_path / "b")
    found = [find_bundle(str(path)) for path in (folder, folder / "model.yaml", folder / "net.onnx")]
    assert found[0] == found[1] == found[2]
    assert found[0].weights_path == folder / "net.onnx" and found[0].spec.name == "blank"
    assert find_bundle(folder) == found[0]


def test_a_spec_of_the_same_stem_belongs_to_a_weights_file(tmp_path):
    make_bundle(tmp_path, weights={"file": "other.onnx", "sha256": "0" * 64})
    make_bundle(tmp_path, spec_file="net.yaml", name="own")
    assert find_bundle(tmp_path / "net.onnx").spec.name == "own"


def test_a_spec_of_another_weights_file_is_refused(tmp_path):
    make_bundle(tmp_path)
    (tmp_path / "stray.onnx").write_bytes(b"")
    assert "is the spec of net.onnx, not of stray.onnx" in refusal(tmp_path / "stray.onnx")


def test_a_weights_file_without_a_spec_is_refused(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08")  # ONNX, version 8, without metadata
    assert "no net.yaml or model.yaml" in refusal(tmp_path / "net.onnx")


def test_an_unknown_name_lists_the_known_ones():
    assert "no model is named cluods; give a bundle folder, or a known name: " in refusal(
        "cluods"
    ) and "clouds" in refusal("cluods")


def test_a_path_that_does_not_exist_and_a_folder_without_a_spec_are_refused(tmp_path):
    assert "no model at" in refusal(tmp_path / "nothing" / "net.onnx")
    assert "no model spec at" in refusal(tmp_path)


def test_weights_that_are_missing_are_named(tmp_path):
    folder = make_bundle(tmp_path)
    (folder / "net.onnx").unlink()
    assert str(folder / "net.onnx") in refusal(folder)


def test_wrong_weights_are_refused_with_both_hashes(tmp_path):
    folder = make_bundle(tmp_path)
    (folder / "net.onnx").write_bytes(b"changed")
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert hashlib.sha256(b"changed").hexdigest()[:12] in message and "\n" not in message
    assert hashlib.sha256(PARAMETERS).hexdigest()[:12] in message


def test_names_on_tilesseg_models_are_found_and_hide_nothing_shipped(tmp_path, monkeypatch):
    make_bundle(tmp_path / "one" / "roofs")
    make_bundle(tmp_path / "two" / "clouds", name="impostor")
    alone = make_bundle(tmp_path / "three" / "fields")
    monkeypatch.setenv("TILESSEG_MODELS", f"{tmp_path / 'one'}:{tmp_path / 'two'}:{alone}:{tmp_path / 'absent'}:")
    assert find_bundle("roofs").folder == tmp_path / "one" / "roofs"
    assert find_bundle("fields").folder == alone
    rows = {row.name: row for row in list_models()}
    assert {"roofs", "fields", "clouds", "clouds-l2a", "clouds-4b", "clouds-4b-l2a"} <= rows.keys()
    assert rows["clouds"].folder.parent == bundle.SHIPPED


def test_a_known_name_wins_over_a_folder_of_that_name(tmp_path, monkeypatch):
    make_bundle(tmp_path / "known" / "roofs", name="known")
    make_bundle(tmp_path / "here" / "roofs", name="here")
    monkeypatch.setenv("TILESSEG_MODELS", str(tmp_path / "known"))
    monkeypatch.chdir(tmp_path / "here")
    assert find_bundle("roofs").spec.name == "known"
    assert find_bundle("./roofs").spec.name == "here"


def test_a_broken_bundle_is_listed_with_its_problem(tmp_path, monkeypatch):
    (make_bundle(tmp_path / "broken") / "model.yaml").write_text("name: broken\n")
    monkeypatch.setenv("TILESSEG_MODELS", str(tmp_path))
    row = next(row for row in list_models() if row.name == "broken")
    assert row.spec is None and "required and missing" in row.problem


def test_a_bundle_whose_package_is_absent_is_listed_with_the_extra_it_needs(monkeypatch):
    real = bundle.find_spec
    monkeypatch.setattr(bundle, "find_spec", lambda name: None if name == "ukis_csmask" else real(name))
    row = next(row for row in list_models() if row.name == "clouds")
    assert row.problem == "needs extra clouds" and row.spec.licence == "Apache-2.0"
    assert "pip install 'tilesseg[clouds]'" in refusal("clouds")


def test_every_shipped_bundle_carries_the_name_of_its_folder():
    rows = [row for row in list_models() if row.folder.parent == bundle.SHIPPED]
    assert rows and all(row.spec is not None and row.spec.name == row.name for row in rows)


def test_a_bundle_inside_an_installed_package_is_found(tmp_path, monkeypatch):
    make_bundle(tmp_path / "fieldmodels" / "v1")
    (tmp_path / "fieldmodels" / "__init__.py").write_text("raise RuntimeError('finding must not import')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_bundle("package://fieldmodels/v1").folder == tmp_path / "fieldmodels" / "v1"
    assert "package not_here, which is not installed" in refusal("package://not_here/v1")


def test_an_address_is_fetched_once_and_checked(tmp_path, server):
    address, asked = server
    folder = make_bundle(tmp_path / "www" / "roofs")
    sha256 = hashlib.sha256((folder / "model.yaml").read_bytes()).hexdigest()
    reference = f"{address}/roofs/model.yaml#sha256={sha256}"
    first = find_bundle(reference, schemes=("http",))
    assert first.weights_path.read_bytes() == PARAMETERS and first.folder.is_relative_to(tmp_path / "cache")
    assert len(asked) == 2
    assert find_bundle(reference, schemes=("http",)) == first and len(asked) == 2
    verify_weights(first)


@pytest.mark.parametrize("changed", ["model.yaml", "net.onnx"])
def test_a_fetched_file_that_is_not_what_its_sha256_says_is_refused_and_not_kept(tmp_path, server, changed):
    folder = make_bundle(tmp_path / "www" / "roofs")
    sha256 = hashlib.sha256((folder / "model.yaml").read_bytes()).hexdigest()
    (folder / changed).write_bytes((folder / changed).read_bytes() + b"\n")
    message = refusal(f"{server[0]}/roofs/model.yaml#sha256={sha256}", schemes=("http",))
    assert changed in message and "has sha256" in message
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert changed not in kept and not any(name.startswith(".partial") for name in kept)


def test_addresses_that_prove_nothing_or_lead_nowhere_are_refused(tmp_path, server):
    good = "0" * 64
    assert "begins with https://" in refusal(f"http://127.0.0.1:9/model.yaml#sha256={good}")
    assert "has no sha256" in refusal("https://127.0.0.1:9/model.yaml")
    assert "has no sha256" in refusal("https://127.0.0.1:9/model.yaml#sha256=abc")
    assert "not a model.yaml" in refusal(f"https://127.0.0.1:9/net.onnx#sha256={good}")
    assert "cannot fetch" in refusal(f"{server[0]}/absent/model.yaml#sha256={good}", schemes=("http",))
    server[1].clear()
    assert "cannot fetch" in refusal(f"https://127.0.0.1:9/model.yaml#sha256={good}")


def test_a_fetched_spec_cannot_write_outside_the_cache(tmp_path, server):
    folder = make_bundle(tmp_path / "www" / "roofs")
    data = spec_data(weights={"file": "../../../evil.onnx", "sha256": hashlib.sha256(PARAMETERS).hexdigest()})
    (folder / "model.yaml").write_text(yaml.safe_dump(data))
    sha256 = hashlib.sha256((folder / "model.yaml").read_bytes()).hexdigest()
    assert "beside model.yaml" in refusal(f"{server[0]}/roofs/model.yaml#sha256={sha256}", schemes=("http",))
    assert not list(tmp_path.rglob("evil.onnx"))


def test_the_hash_of_a_bundle_follows_what_changes_the_mask_and_not_its_description(tmp_path):
    folder = make_bundle(tmp_path / "a")
    first = find_bundle(folder).sha256
    moved = find_bundle(shutil.copytree(folder, tmp_path / "b")).sha256
    described = find_bundle(make_bundle(tmp_path / "c", description="words")).sha256
    assert first == moved == described
    for changes in ({"fill": 3.0}, {"weights": {"file": "net.onnx", "sha256": "0" * 64}}):
        assert find_bundle(make_bundle(tmp_path / "d", **changes)).sha256 != first


def test_an_engine_may_be_any_class_by_its_dotted_path(tmp_path):
    folder = make_bundle(tmp_path, engine=f"{__name__}:OneClass", weights=None)
    model = load_model(folder, threads=3)
    scores = model.predict(np.zeros((2, 2, 8, 8), np.float32))
    assert scores.shape == (2, 2, 8, 8) and model.device == "cpu"
    assert isinstance(model.spec, ModelSpec) and model.engine.threads == 3


def test_scores_of_another_shape_than_promised_are_refused_with_both(tmp_path):
    model = load_model(make_bundle(tmp_path, engine=f"{__name__}:Narrow", weights=None))
    with pytest.raises(ModelError, match=r"\(1, 1, 6, 6\).*promises \(1, 2, 8, 8\)"):
        model.predict(np.zeros((1, 2, 8, 8), np.float32))
    with pytest.raises(ModelError, match="takes 2 bands, not 3"):
        model.predict(np.zeros((1, 3, 8, 8), np.float32))


@pytest.mark.parametrize("engine", ["tensorflow", "no_such_module:Engine", f"{__name__}:NoSuchEngine"])
def test_an_unknown_engine_is_refused_in_one_line(tmp_path, engine):
    with pytest.raises(ModelError) as caught:
        load_model(make_bundle(tmp_path, engine=engine))
    assert engine in str(caught.value) and "\n" not in str(caught.value)


def test_an_engine_of_ours_without_weights_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no section `weights`"):
        load_model(make_bundle(tmp_path, weights=None))


def test_the_table_of_engines_names_what_exists():
    assert set(ENGINES) == {(kind, runtime) for kind, runtimes in KINDS.items() for runtime in runtimes}
    for kind, runtime in ENGINES:
        spec = ModelSpec.model_validate(spec_data(engine=kind, unet={} if kind == "unet" else None))
        assert callable(models._opener(spec, runtime))
