"""`--track`: the metrics of each step arrive in the tracker's own files, read back with its own package."""

from __future__ import annotations

import sys

import pytest

from gentax.core import UsageError
from gentax.integrations.trackers import tracked

ROWS = [{"sft_step": 1, "of": 2, "loss": 3.0}, {"sft_step": 2, "of": 2, "loss": 2.0}, {"step": 1, "reward": 0.5}]


def feed(name, run):
    with tracked(name, run, {"max_steps": 1}) as on_step:
        run.mkdir(exist_ok=True)
        for row in ROWS:
            on_step(row)


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    feed("tensorboard", tmp_path / "mine")
    (events,) = (tmp_path / "mine" / "tensorboard").iterdir()
    written = events.read_bytes()
    assert b"sft/loss" in written
    assert b"reward" in written


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    feed("wandb", tmp_path / "mine")
    assert list((tmp_path / "mine" / "wandb").glob("offline-run-*/*.wandb"))


def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    feed("mlflow", tmp_path / "mine")
    (run,) = mlflow.search_runs(search_all_experiments=True).to_dict("records")
    assert (run["metrics.sft/loss"], run["metrics.reward"], run["params.max_steps"]) == (2.0, 0.5, "1")


def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when trackio is imported
    pytest.importorskip("trackio")
    feed("trackio", tmp_path / "mine")
    assert list((tmp_path / "trackio").rglob("*.db"))


def test_unknown_and_missing_trackers_are_named_before_training(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="did you mean 'wandb'"):
        feed("wandbb", tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="--track wandb needs wandb: pip install wandb"):
        feed("wandb", tmp_path)


def test_without_a_tracker_nothing_is_imported(tmp_path):
    feed(None, tmp_path)
    assert list(tmp_path.iterdir()) == []
