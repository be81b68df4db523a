"""The studies in studies/ can be planned, state what they are to show, and are listed in its README."""

from __future__ import annotations

from pathlib import Path

import pytest

from gentax.core import UsageError
from gentax.core.settings import read_settings, read_yaml
from gentax.domains import domain, missing_modules
from gentax.studies import read_study
from gentax.studies.costs import CostModel, clock, overview, read_costs
from gentax.studies.plan import make_plan
from gentax.studies.store import Store
from gentax.training import TrainConfig

FOLDER = Path(__file__).parents[2] / "studies"
COSTS = FOLDER / "costs-8b-example.yaml"
STUDIES = sorted(set(FOLDER.glob("*.yaml")) - {COSTS})
README = (FOLDER / "README.md").read_text(encoding="utf-8")
LARGE = ("paper_", "grid_")  # made for GPUs, of models that are not here


needs_alfworld = pytest.mark.skipif(bool(missing_modules(domain("alfworld"))), reason="it takes gentax[alfworld]")


def parameter(file: Path):
    """A study that chooses by validation tasks asks every domain what its tasks are made of, in Java or not."""
    text, marks = file.read_text(encoding="utf-8"), []
    if "\nsplit: validation" in text:
        marks.append(pytest.mark.jvm)
    if "alfworld" in text:
        marks.append(needs_alfworld)
    return pytest.param(file, id=file.stem, marks=marks)


@pytest.mark.parametrize("file", [parameter(file) for file in STUDIES])
def test_a_study_can_be_planned(file, tmp_path):
    text = file.read_text(encoding="utf-8")
    study = read_study(file)
    plan = make_plan(study, weights=False)
    large = file.stem.startswith(LARGE)
    seconds = overview(plan, Store(tmp_path), CostModel(), 2).wall_seconds
    assert text.startswith("# ")
    assert f"`{file.name}`" in README
    assert len(study.claims) > 0 or file.stem.startswith("demo")
    assert plan.by_name == ((study.model,) if large else ())
    if not large:
        (row,) = [line for line in README.splitlines() if f"`{file.name}`" in line]
        assert seconds < 2 * 3600
        assert row.endswith(f"| {clock(seconds)} |")  # what `gentax study plan --workers 2` prints


@pytest.mark.parametrize("file", sorted((FOLDER / "starts").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_start_of_a_study_is_a_config(file):
    config = read_settings(TrainConfig, read_yaml(file), str(file))
    assert config.updates or config.sft_mixture


def test_a_model_that_is_not_here_is_planned_by_its_name_only_when_that_is_asked_for(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("name: x\nmodel: runs/mine/step-000020\ndomains: {crafting: {}, sokoban: {}}\nsources: [crafting]")
    study = read_study(file)
    with pytest.raises(UsageError, match="runs/mine"):
        make_plan(study)
    plan = make_plan(study, weights=False)
    assert plan.by_name == ("runs/mine/step-000020",)
    file.write_text(file.read_text().replace("runs/mine/step-000020", "bsae"))
    with pytest.raises(UsageError, match="did you mean 'base'"):  # a slip is refused in either case
        make_plan(read_study(file), weights=False)


@needs_alfworld
def test_a_large_study_is_planned_from_unit_costs(tmp_path):
    plan = make_plan(read_study(FOLDER / "grid_8b.yaml"), weights=False)
    costs = read_costs(COSTS)
    found = overview(plan, Store(tmp_path), CostModel(costs), 64)
    assert len(plan.after) == 1000
    assert len(plan.trained) == 125
    # 100 runs of four checkpoints and 25 half as long; the rest is evaluations.
    trained = (100 * 4 + 25 * 2) * costs.checkpoint_gb
    assert found.storage / 1e9 == pytest.approx(trained + 1017 * costs.evaluate_storage_gb)
    training = sum(found.seconds[stage] for stage in plan.trained.values())
    playing = sum(found.seconds[stage] for stage in (*plan.after.values(), *plan.init.values()))
    assert found.gpu_seconds == pytest.approx(training + playing)  # one GPU each; none for random play and the report
    page = (FOLDER.parent / "docs/how-to/plan-8b.md").read_text(encoding="utf-8")
    assert f"about {clock(found.wall_seconds)} with 64 at once, {found.gpu_seconds / 3600:.0f} GPU hours" in page
    assert f"{found.storage / 1e12:.1f} TB of storage" in page
