"""Exported packages, loaded again without the programs that write them."""

from __future__ import annotations

import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import napari_focus_fusion as ff
from napari_focus_fusion.export.formats import STATE_DICT
from napari_focus_fusion.export.networks import Encoder, SliceScores, StackWeights
from napari_focus_fusion.export.package import about_model, write_about
from napari_focus_fusion.models.package import ABOUT
from napari_focus_fusion.models.registry import hash_of, hash_of_tensors, save_weights
from small_models import random_sesf, relief

if TYPE_CHECKING:
    from pathlib import Path

    from napari_focus_fusion.models.base import FusionModel

NETWORKS = {"sesf": SliceScores, "dual-path": StackWeights, "mscnn": Encoder}
TUNED = {"parent": "sesf", "summary": "Tuned from sesf on pollen, 9 steps."}


def packed(
    network: FusionModel, path: Path, leave_out: str = "", **changes: str
) -> Path:
    """A package with what loading it needs, and a description beside it."""
    assert network.spec is not None
    folder = path.with_suffix("")
    folder.mkdir()
    kind = NETWORKS[network.spec.base or network.spec.name]
    torch.save(kind(network).state_dict(), folder / STATE_DICT)
    write_about(folder, about_model(network))
    about = json.loads((folder / ABOUT).read_text())
    (folder / ABOUT).write_text(json.dumps(about | changes))
    (folder / "rdf.yaml").write_text("type: model\nname: Nuclei in 2D\n")
    with zipfile.ZipFile(path, "w") as package:
        for file in folder.iterdir():
            if file.name != leave_out:
                package.write(file, file.name)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_a_package_is_the_model_that_it_was_made_of(name: str, tmp_path: Path) -> None:
    model = ff.load_model(name)
    again = ff.load_model(packed(model, tmp_path / "packed.zip"))
    assert again.spec == model.spec
    assert again.weights_hash == model.weights_hash
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], tensor, rtol=0, atol=0)


def test_fused_by_its_path_as_by_its_name(tmp_path: Path) -> None:
    path = packed(ff.load_model("sesf"), tmp_path / "sesf.zip")
    stack = relief(64, 72, 3).stack
    expected, found = ff.fuse(stack, "sesf"), ff.fuse(stack, path)
    np.testing.assert_array_equal(found.fused, expected.fused)
    for key in ("model", "weights_sha256"):
        assert found.provenance[key] == expected.provenance[key]


def test_fine_tuned_weights_keep_their_name_and_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_FOCUS_FUSION_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    save_weights(random_sesf(1), tmp_path / "tuned.safetensors", {}, TUNED)
    tuned = ff.load_model(tmp_path / "tuned.safetensors")
    path = packed(tuned, tmp_path / "models" / "pollen.zip")
    # In the folder of models it is one of them.
    spec = ff.models()["pollen"]
    assert (spec.title, spec.summary) == (
        "pollen: SESF-Fuse, fine-tuned",
        TUNED["summary"],
    )
    for again in (ff.load_model("pollen"), ff.load_model(path)):
        assert again.spec == spec
        assert again.weights_hash == hash_of(tmp_path / "tuned.safetensors")
    # A package of a package says the same.
    once_more = packed(again, tmp_path / "pollen.zip")
    assert ff.load_model(once_more).spec.summary == TUNED["summary"]  # type: ignore[union-attr]


def test_weights_beside_their_package_are_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_FOCUS_FUSION_MODELS", str(tmp_path))
    save_weights(random_sesf(1), tmp_path / "mine.safetensors", {}, TUNED)
    packed(random_sesf(2), tmp_path / "mine.zip")
    with pytest.warns(RuntimeWarning, match="there is a model called 'mine' already"):
        spec = ff.models()["mine"]
    assert spec.weights == str(tmp_path / "mine.safetensors")


def test_exchanged_weights_have_a_hash_of_their_own(tmp_path: Path) -> None:
    model = random_sesf(1)
    path = packed(model, tmp_path / "new.zip", tensors_sha256="0", weights_sha256="1")
    assert ff.load_model(path).weights_hash == hash_of_tensors(model)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"leave_out": ABOUT},
            "holds a bioimage.io model called 'Nuclei in 2D' of another program",
        ),
        ({"leave_out": STATE_DICT}, "are missing or damaged"),
        ({"sha256": "0"}, "are not those that were exported"),
        ({"model": "stardist"}, "the model 'stardist', which is not installed"),
        ({"model": "mscnn"}, "does not fit MSCNN"),
    ],
)
def test_what_cannot_be_loaded_says_why(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = packed(random_sesf(1), tmp_path / "package.zip", **options)
    with pytest.raises(ff.FocusFusionError, match=re.escape(words)) as raised:
        ff.load_model(path)
    assert "package.zip" in str(raised.value)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    model = random_sesf(1)
    next(model.parameters()).data[0] = np.nan
    with pytest.raises(ff.FocusFusionError, match="holds NaN or infinite values"):
        ff.load_model(packed(model, tmp_path / "broken.zip"))


def test_files_that_are_no_packages(tmp_path: Path) -> None:
    path = packed(random_sesf(1), tmp_path / "whole.zip")
    cut = tmp_path / "cut.zip"
    cut.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ff.FocusFusionError, match="may have been copied incompletely"):
        ff.load_model(cut)
    other = tmp_path / "photos.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("photo.txt", "a photo")
    with pytest.raises(ff.FocusFusionError, match="is no package of a model"):
        ff.load_model(other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr(ABOUT, "[1, 2")
    with pytest.raises(ff.FocusFusionError, match="is damaged"):
        ff.load_model(other)
    with pytest.raises(ff.FocusFusionError, match="There is no model"):
        ff.load_model(tmp_path / "nowhere.zip")
