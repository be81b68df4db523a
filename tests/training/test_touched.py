"""What a run touched: sources, what is imitated, whose text is replayed; read from a recipe or from a run's folder."""

import json

import pytest

from gentax.core import UsageError
from gentax.core.settings import plain
from gentax.training.check import touched_by, touched_by_run
from gentax.training.config import RUN_FORMAT, CurriculumConfig, ForgettingConfig, Phase, SFTConfig, TrainConfig


def test_sources_experts_and_replayed_text_touch():
    assert touched_by(TrainConfig(source="sokoban")) == {"sokoban"}
    mixed = TrainConfig(curriculum=CurriculumConfig(phases=(Phase({"sokoban:6x6": 1, "crafting": 1}),)))
    assert touched_by(mixed) == {"sokoban", "crafting"}
    taught = TrainConfig(source="sokoban", sft=SFTConfig(mixture={"webshop": 1, "sokoban": 1, "alfworld": 0}))
    assert touched_by(taught) == {"sokoban", "webshop"}
    told = TrainConfig(source="sokoban", forgetting=ForgettingConfig(replay=1.0, replay_domains=("crafting:hard",)))
    assert touched_by(told) == {"sokoban", "crafting"}
    every = touched_by(
        TrainConfig(source="sokoban", forgetting=ForgettingConfig(replay=1.0), held_out_domains=("webshop",))
    )
    assert "crafting" in every
    assert "webshop" not in every


def test_a_checkpoint_knows_by_its_run(tmp_path):
    config = TrainConfig(source="sokoban", forgetting=ForgettingConfig(replay=1.0, replay_domains=("webshop",)))
    step = tmp_path / "run" / "step-000100"
    step.mkdir(parents=True)
    assert touched_by_run(step) is None
    record = tmp_path / "run" / "recipe.json"
    record.write_text(json.dumps(written := {"format": RUN_FORMAT, **plain(config)}))
    assert touched_by_run(step) == touched_by_run(tmp_path / "run") == {"sokoban", "webshop"}
    for others in ("{}x", "[1]", '{"cake": 3}'):
        record.write_text(others)
        assert touched_by_run(step) is None
    record.write_text(json.dumps(written | {"forgetting": {"replayy": 1}}))
    with pytest.raises(UsageError, match="does not say what training touched"):
        touched_by_run(step)
    record.write_text(json.dumps({"play": {}, "retain": {}}))
    with pytest.raises(UsageError, match="another version of gentax wrote it; move it away"):
        touched_by_run(step)
