"""The engine of `edgekit make`: what is done, what is skipped, and what is left when it stops half-way."""

from __future__ import annotations

import shutil

import pytest

from edgekit.bundle import read_bundle, read_sidecar
from edgekit.errors import BundleError, CheckpointError, ParityFailed, RecipeError
from edgekit.recipe import inputs
from edgekit.recipe.make import STEPS
from edgekit.recipe.state import only_maker, waiting_place
from tests.conftest import paper_manifest
from tests.recipe.workshop import Workshop, done, statuses


def interrupt() -> None:
    raise KeyboardInterrupt


def test_the_first_run_makes_a_bundle_that_passed_its_comparison(workshop: Workshop) -> None:
    made = workshop.make()
    assert [step.name for step in made.steps] == list(STEPS)
    assert done(made.steps) == ["export", "parity", "bundle"]  # the checkpoint is local, and there is no fingerprint
    assert workshop.left() == ["tiny.cpu"]
    bundle = read_bundle(workshop.destination, verify="full")
    assert read_sidecar(bundle, "parity") == made.parity == {"passed": True, "failure": None}
    assert bundle.manifest.raw["recipe"]["file"] == "tiny.cpu.toml"
    assert bundle.manifest.raw["recipe"]["quantization"] == {"dtype": "int4", "block_size": 32}


def test_the_second_run_does_nothing(workshop: Workshop) -> None:
    workshop.make()
    before = {path: path.stat().st_mtime_ns for path in workshop.destination.rglob("*")}
    shutil.rmtree(workshop.checkpoint)  # not even the checkpoint is needed
    made = workshop.make()
    assert workshop.calls == []
    assert set(statuses(made.steps).values()) == {"skipped"}
    assert {path: path.stat().st_mtime_ns for path in workshop.destination.rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        (('dtype = "int4"', 'dtype = "int8"'), ["export", "parity"]),
        (("", 'form = "portable"'), ["export", "parity"]),
        (("", "[limits]\nmax_context = 128"), ["export", "parity"]),
        (("", "[parity]\ntokens = 5"), ["parity"]),
        (("", "# a remark"), []),
        (('name = "./weights"', 'name = "./elsewhere"'), []),
    ],
)
def test_what_a_change_of_the_recipe_redoes(workshop: Workshop, change: tuple[str, str], calls: list[str]) -> None:
    workshop.make()
    shutil.copytree(workshop.checkpoint, workshop.folder / "elsewhere")
    workshop.write(change)
    made = workshop.make()
    assert workshop.calls == calls
    assert statuses(made.steps)["pull"] == "skipped"
    assert statuses(made.steps)["bundle"] == ("done" if "export" in calls else "skipped")
    assert read_bundle(workshop.destination).manifest.dtype == workshop.recipe.quantization.dtype


def test_another_version_of_a_package_redoes_the_export(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.make()
    version = inputs._version
    monkeypatch.setattr(inputs, "_version", lambda name: "0.0" if name == "onnx" else version(name))
    made = workshop.make()
    assert workshop.calls == ["export", "parity"]
    assert "changed" in made.steps[1].detail


def test_another_source_redoes_what_it_is_part_of(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.make()
    source = inputs._source_digest
    monkeypatch.setattr(inputs, "_source_digest", lambda parts: "new" if "parity" in parts else source(parts))
    workshop.make()
    assert workshop.calls == ["parity"]


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
def test_an_altered_file_is_made_again(workshop: Workshop, name: str) -> None:
    workshop.make()
    file = workshop.destination / name
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    made = workshop.make()
    assert workshop.calls == ["export", "parity"]
    assert made.steps[1].detail == f"{name} is altered"
    assert file.read_bytes() == content


def test_a_missing_file_is_made_again(workshop: Workshop) -> None:
    workshop.make()
    (workshop.destination / "model.onnx.data").unlink()
    assert workshop.make().steps[1].detail == "model.onnx.data is missing"
    read_bundle(workshop.destination, verify="full")


def test_a_lost_measurement_is_taken_again(workshop: Workshop) -> None:
    workshop.make()
    (workshop.destination / "parity.json").unlink()
    assert done(workshop.make().steps) == ["parity"]
    assert (workshop.destination / "parity.json").is_file()


@pytest.mark.parametrize(("force", "calls"), [("export", ["export", "parity"]), ("parity", ["parity"])])
def test_force_does_a_step_though_nothing_changed(workshop: Workshop, force: str, calls: list[str]) -> None:
    workshop.make()
    workshop.make(force=force)
    assert workshop.calls == calls


def test_a_plan_tells_what_make_does_and_does_nothing(workshop: Workshop) -> None:
    def compare(force: str | None = None) -> None:
        before = sorted(workshop.folder.rglob("*"))
        planned = workshop.plan(force)
        assert sorted(workshop.folder.rglob("*")) == before
        assert statuses(planned) == statuses(workshop.make(force=force).steps)

    compare()
    compare()
    compare("parity")
    compare("export")
    workshop.write(("", "[parity]\ntokens = 5"))
    compare()
    (workshop.destination / "model.onnx").write_bytes(b"")
    compare()
    workshop.make(update_fingerprint=True)
    compare()


def test_a_failed_comparison_keeps_the_bundle_from_its_place(workshop: Workshop) -> None:
    workshop.make()
    earlier = read_bundle(workshop.destination).manifest_sha256
    workshop.write(('dtype = "int4"', 'dtype = "int8"'))
    workshop.verdict = False
    with pytest.raises(ParityFailed, match=r"hidden\.1: cosine 0\.5") as caught:
        workshop.make()
    assert str(waiting_place(workshop.destination)) in caught.value.next_step
    assert read_bundle(workshop.destination).manifest_sha256 == earlier
    with pytest.raises(ParityFailed):
        workshop.make()
    assert workshop.calls == ["parity"]  # compared again, not exported again
    workshop.verdict = True
    assert done(workshop.make().steps) == ["parity", "bundle"]
    assert workshop.left() == ["tiny.cpu"]


def test_an_interrupted_export_leaves_nothing(workshop: Workshop) -> None:
    workshop.on_export = interrupt
    with pytest.raises(KeyboardInterrupt):
        workshop.make()
    assert workshop.left() == []


def test_an_interrupted_comparison_is_continued(workshop: Workshop) -> None:
    workshop.on_parity = interrupt
    with pytest.raises(KeyboardInterrupt):
        workshop.make()
    assert not workshop.destination.exists()
    workshop.on_parity = lambda: None
    made = workshop.make()
    assert workshop.calls == ["parity"]
    assert "cut short" in made.steps[1].detail
    assert workshop.left() == ["tiny.cpu"]


def test_a_waiting_bundle_of_another_recipe_is_not_used(workshop: Workshop) -> None:
    workshop.on_parity = interrupt
    with pytest.raises(KeyboardInterrupt):
        workshop.make()
    workshop.on_parity = lambda: None
    workshop.write(('dtype = "int4"', 'dtype = "int8"'))
    workshop.make()
    assert workshop.calls == ["export", "parity"]
    assert read_bundle(workshop.destination).manifest.dtype == "int8"


def test_a_waiting_bundle_that_nobody_wants_any_more_is_removed(workshop: Workshop) -> None:
    workshop.make()
    workshop.write(('dtype = "int4"', 'dtype = "int8"'))
    workshop.on_parity = interrupt
    with pytest.raises(KeyboardInterrupt):
        workshop.make()
    assert workshop.left() == [".tiny.cpu.unproven", "tiny.cpu"]
    workshop.write()
    assert done(workshop.make().steps) == []
    assert workshop.left() == ["tiny.cpu"]


def test_another_checkpoint_is_refused_before_the_work(workshop: Workshop) -> None:
    config = workshop.checkpoint / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(RecipeError, match=r"config\.json has .*, the recipe says ") as caught:
        workshop.make()
    assert next(line for line in workshop.hashes() if "config.json" in line) in caught.value.next_step
    assert workshop.calls == []
    assert workshop.left() == []


def test_a_file_without_a_hash_is_refused(workshop: Workshop) -> None:
    line = next(line for line in workshop.hashes() if "config.json" in line)
    workshop.recipe.checkpoint.sha256.pop("config.json")
    with pytest.raises(RecipeError, match=r"no hash of config\.json") as caught:
        workshop.make()
    assert line in caught.value.next_step


def test_a_hash_without_a_file_is_refused(workshop: Workshop) -> None:
    (workshop.checkpoint / "generation_config.json").unlink()
    with pytest.raises(RecipeError, match=r"has no file generation_config\.json"):
        workshop.make()


def test_a_checkpoint_that_is_not_there(workshop: Workshop) -> None:
    shutil.rmtree(workshop.checkpoint)
    with pytest.raises(CheckpointError, match="weights"):
        workshop.make()


def test_a_known_checkpoint_that_is_not_in_the_cache_is_not_fetched_offline(workshop: Workshop) -> None:
    workshop.write(('name = "./weights"', 'name = "smollm2-135m"'))
    assert statuses(workshop.plan())["pull"] == "done"
    with pytest.raises(CheckpointError, match="without a network"):
        workshop.make(offline=True)


def test_the_destination_may_hold_nothing_else(workshop: Workshop) -> None:
    workshop.destination.mkdir(parents=True)
    (workshop.destination / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="holds other files"):
        workshop.make()
    with pytest.raises(BundleError, match="holds other files"):
        workshop.plan()
    assert workshop.calls == []


def test_a_bundle_with_a_foreign_file_is_not_replaced(workshop: Workshop) -> None:
    workshop.make()
    (workshop.destination / "notes.txt").write_text("mine")
    workshop.write(('dtype = "int4"', 'dtype = "int8"'))
    with pytest.raises(BundleError, match=r"notes\.txt"):
        workshop.make()
    assert workshop.calls == []


@pytest.mark.parametrize("recipe", [None, {"file": "other.cpu.toml"}])
def test_a_bundle_that_the_recipe_did_not_make_is_not_replaced(workshop: Workshop, recipe: object) -> None:
    from edgekit.bundle import write_bundle

    with write_bundle(workshop.destination) as draft:
        for name in ("model.onnx", "model.onnx.data"):
            (draft.path / name).write_bytes(b"")
        draft.manifest.update({**paper_manifest(), "recipe": recipe})
    with pytest.raises(RecipeError, match="replaces only bundles of its own recipe"):
        workshop.make()
    assert workshop.calls == []


def test_one_maker_at_a_time(workshop: Workshop) -> None:
    with only_maker(workshop.destination), pytest.raises(RecipeError, match="another one is making"):
        workshop.make()
    assert workshop.calls == []
    workshop.make()
