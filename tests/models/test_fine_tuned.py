"""The folder of fine-tuned models: what is found there, and what is left out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from napari_focus_fusion import FocusFusionError, load_model, models
from napari_focus_fusion.models.fine_tuned import free_name, path_of_name
from napari_focus_fusion.models.registry import (
    OURS,
    hash_of,
    models_folder,
    save_weights,
    weights_folder,
)
from small_models import random_sesf

TUNED = {"parent": "sesf", "summary": "Tuned from sesf on pollen, 9 steps."}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_FOCUS_FUSION_MODELS", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def shipped() -> list[str]:
    """Our models whose weights are there."""
    files = {path.name for path in weights_folder().iterdir()} | {""}
    return [spec.name for spec in OURS if spec.weights in files]


def test_files_are_models_by_their_names(folder: Path) -> None:
    save_weights(random_sesf(1), folder / "pollen.safetensors", {}, TUNED)
    again = TUNED | {"parent": "pollen"}
    save_weights(random_sesf(2), folder / "Again.safetensors", {}, again)
    save_weights(random_sesf(3), folder / "anew.safetensors", {})
    found = models()
    assert list(found) == [*shipped(), "Again", "anew", "pollen"]
    assert {name: found[name].title for name in ("pollen", "Again", "anew")} == {
        "pollen": "pollen: SESF-Fuse, fine-tuned",
        "Again": "Again: SESF-Fuse, fine-tuned from pollen",
        "anew": "anew: SESF-Fuse, trained",
    }
    assert found["pollen"].summary == TUNED["summary"]
    assert found["anew"].summary == found["sesf"].summary
    model = load_model("Again")
    assert model.spec == found["Again"]
    assert model.weights_hash == hash_of(folder / "Again.safetensors")
    # Renamed, it is a model by its new name.
    (folder / "Again.safetensors").rename(folder / "pollen-2.safetensors")
    assert "Again" not in models()
    assert load_model("pollen-2").weights_hash == model.weights_hash


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("cut short", "no readable safetensors.*incompletely"),
        ("empty", "no readable safetensors"),
        ("of another package", "'deepest', which is not installed"),
        ("of a taken name", "a model called 'sesf' already"),
        ("a folder", "no readable safetensors"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_a_warning(
    kind: str, words: str, folder: Path
) -> None:
    save_weights(random_sesf(), folder / "good.safetensors", {}, TUNED)
    path = folder / "bad.safetensors"
    about = TUNED | {"model": "deepest"} if "package" in kind else TUNED
    if "name" in kind:
        path = folder / "sesf.safetensors"
    save_weights(random_sesf(), path, {}, about)
    if kind == "cut short":
        path.write_bytes(path.read_bytes()[:-7])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "a folder":
        path.unlink()
        path.mkdir()
    with pytest.warns(RuntimeWarning, match=rf"left out: .*{words}"):
        found = models()
    assert list(found) == [*shipped(), "good"]
    assert found["sesf"] == next(spec for spec in OURS if spec.name == "sesf")


def test_names_are_fit_for_files_and_free(folder: Path) -> None:
    save_weights(random_sesf(), folder / "pollen.safetensors", {}, TUNED)
    taken = models()
    assert path_of_name("pollen-3_B", taken) == folder / "pollen-3_B.safetensors"
    for name in ("pollen", "POLLEN", "sesf", "Sml"):
        with pytest.raises(FocusFusionError, match=f"called '{name}' already"):
            path_of_name(name, taken)
    for name in ("", ".x", "-x", "a b", "a/b", "a\\b", "é", "a.b", "x" * 65, "CON"):
        with pytest.raises(FocusFusionError, match="cannot be called"):
            path_of_name(name, taken)


def test_the_folder_is_where_the_platform_keeps_such_things(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NAPARI_FOCUS_FUSION_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    tail = Path("napari-focus-fusion", "models")
    for platform, place in (
        ("linux", "/data"),
        ("win32", "/local"),
        ("darwin", "/home/me/Library/Application Support"),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        assert models_folder() == place / tail
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert models_folder() == Path("/home/me/.local/share") / tail
    monkeypatch.setenv("NAPARI_FOCUS_FUSION_MODELS", "~/weights")
    assert models_folder() == Path("~/weights").expanduser()


def test_a_folder_that_is_not_there_holds_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_FOCUS_FUSION_MODELS", str(folder / "absent"))
    assert list(models()) == shipped()


def test_a_folder_that_is_given_goes_before_that_of_the_environment(
    folder: Path, tmp_path: Path
) -> None:
    """For what is found there, loaded, and called by a name that is free."""
    other = tmp_path / "other"
    other.mkdir()
    save_weights(random_sesf(1), folder / "pollen.safetensors", {}, TUNED)
    save_weights(random_sesf(2), other / "spores.safetensors", {}, TUNED)
    assert models_folder(str(other)) == other
    assert models_folder("~/weights") == Path("~/weights").expanduser()
    assert list(models()) == [*shipped(), "pollen"]
    assert list(models(other)) == [*shipped(), "spores"]
    found = load_model("spores", other)
    assert found.weights_hash == hash_of(other / "spores.safetensors")
    with pytest.raises(FocusFusionError, match="no model 'pollen'"):
        load_model("pollen", other)
    (other / "stopped.checkpoint").touch()
    assert free_name("stopped", models(other), other) == "stopped-2"
    assert free_name("stopped", models()) == "stopped"
    path = path_of_name("pollen", models(other), other)
    assert path == other / "pollen.safetensors"


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("Pollen, day 3 [z].ome.tif", "Pollen-day-3-z-ome-tif"),
        ("new", "new-2"),
        ("SESF", "SESF-2"),
        ("stopped", "stopped-2"),
        ("日本", "tuned"),
        ("nul", "nul-tuned"),
        ("x" * 200, "x" * 56),
        ("--a_", "a"),
    ],
)
def test_a_free_name_is_free_and_like_the_wish(
    wish: str, name: str, folder: Path
) -> None:
    save_weights(random_sesf(), folder / "NEW.safetensors", {}, TUNED)
    (folder / "stopped.checkpoint").touch()
    assert free_name(wish, models()) == name
    path_of_name(name, models())
