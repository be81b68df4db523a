"""TRL's GRPOTrainer plays our domains through `environment_factory`, with the shipped model."""

from __future__ import annotations

import pytest

from gentax.core import Task, TextEnv, UsageError
from gentax.integrations.trl_environment import OVER, environment_factory, task_rows, use_action_tags
from gentax.policies.local import load_local_policy


def test_rows_name_the_tasks_and_a_task_is_played_to_its_reward():
    rows = task_rows("sokoban", 3, "6x6")
    assert [row["task"] for row in rows] == [f"sokoban/6x6/train/{n}" for n in range(3)]
    env = environment_factory("sokoban", ["distract(volume=80)"], level="6x6")()
    shown = env.reset(**rows[1])
    assert shown.startswith("\nGoal: ")
    assert env._env.unwrapped.task == Task.parse(rows[1]["task"])
    while not shown.endswith(OVER):
        shown = env.step(env._env.expert().action)
    assert env.get_reward() == 1.0
    assert env.step("up") == OVER
    env.reset(**rows[1])
    assert env.get_reward() == 0.0
    with pytest.raises(UsageError, match="did you mean 'sokoban'"):
        environment_factory("sokobn")()


@pytest.mark.slow
def test_trl_trains_on_several_domains_at_once(tmp_path, monkeypatch):
    trl = pytest.importorskip("trl", reason="the extra gentax[trl] is not installed")
    from datasets import Dataset

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    policy = load_local_policy("base")
    tokenizer = policy.tokenizer
    use_action_tags(tokenizer)
    acted = []
    step = TextEnv.step

    def recorded(self, action):
        acted.append((self.domain.name, action))
        return step(self, action)

    monkeypatch.setattr(TextEnv, "step", recorded)
    end = tokenizer("</action>", add_special_tokens=False)["input_ids"][-1]
    trainer = trl.GRPOTrainer(
        model=policy.model.train(),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=96,
            max_tool_calling_iterations=3,
            generation_kwargs={"eos_token_id": [end, tokenizer.eos_token_id]},
            learning_rate=1e-4,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list(task_rows("crafting", 2) + task_rows("sokoban", 2)),
        processing_class=tokenizer,
        environment_factory={name: environment_factory(name) for name in ("crafting", "sokoban")},
    )
    trainer.train()
    assert trainer.state.global_step == 2
    assert {domain for domain, _ in acted} == {"crafting", "sokoban"}
    assert any(action.startswith("get ") for domain, action in acted if domain == "crafting")
    assert "rewards/ToolEnvironment/mean" in trainer.state.log_history[0]
