"""Models by every kind of name: folders, the hub's cache, adapters, GGUF files; devices, dtypes, what is recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from zoo import ZOO

from gentax.core import UsageError
from gentax.models.loading import load_meta_model, load_model, load_tokenizer, runtime
from gentax.models.options import ModelOptions
from gentax.models.source import BASE, find_model, fingerprint, is_hub_id, may_name_model
from gentax.policies.load import load_policy
from gentax.policies.local import load_local_policy

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(3, 40)[None]).logits.float()


def shapes(model) -> dict:
    return {name: (p.shape, p.dtype) for name, p in model.named_parameters()}


@pytest.fixture
def hub(tiny, tmp_path, monkeypatch) -> Path:
    """A hub cache that holds the tiny model as `them/small`, laid out as huggingface_hub does: links to blobs."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return cached(tmp_path, "them/small", tiny)


def cached(cache: Path, name: str, files: Path) -> Path:
    root = cache / f"models--{name.replace('/', '--')}"
    for folder in ("refs", "blobs", f"snapshots/{COMMIT}"):
        (root / folder).mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    snapshot = root / "snapshots" / COMMIT
    for number, file in enumerate(sorted(files.iterdir())):
        shutil.copy(file, root / "blobs" / f"blob{number}")
        (snapshot / file.name).symlink_to(root / "blobs" / f"blob{number}")
    return snapshot


def adapter(base: str | Path, out: Path, tokenizer: bool = False, std: float = 0.05, **settings) -> Path:
    """A LoRA adapter with random weights for the model in a folder, saved as PEFT and TRL save it."""
    import peft
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = BASE if str(base) == "base" else base
    wrapped = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder),
        peft.LoraConfig(**{"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | settings),
    )
    torch.manual_seed(1)
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=std)
    wrapped.save_pretrained(out)
    if tokenizer:
        AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    return out


def test_a_hub_name_is_found_in_the_cache_without_a_network(hub, tiny, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("them/small", "them/small@main", f"them/small@{COMMIT}"):
        policy = load_policy(name)
        assert policy.name == name
        assert policy.runtime["revision"] == COMMIT
        assert torch.equal(logits(policy.model), logits(load_model(tiny)))
    assert fingerprint("them/small") == fingerprint(tiny)


def test_a_hub_name_that_is_not_cached_is_one_line_with_the_command_that_fetches_it(hub, monkeypatch):
    asked = []

    def offline(self, repo, **_):
        asked.append(repo)
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", offline)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UsageError, match=r"not known\); where there is a network, `hf download them/other` fetches it"):
        load_policy("them/other")
    with pytest.raises(UsageError, match="`hf download them/small --revision v2`"):
        load_policy("them/small@v2")
    assert asked == ["them/other", "them/small"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set"):
        load_policy("them/other")
    assert len(asked) == 2  # nobody was asked
    (hub / "model.safetensors").unlink()  # a download that was broken off
    with pytest.raises(UsageError, match="`hf download them/small`"):
        load_policy("them/small")


def test_a_local_model_needs_no_network(tiny, tmp_path, monkeypatch):
    folder = adapter(tiny, tmp_path / "adapter")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("somebody was called"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    for name in ("base", tiny, folder):
        load_local_policy(name)


def test_what_is_fetched_is_safetensors_configuration_and_tokenizer(hub, monkeypatch):
    import fnmatch
    from types import SimpleNamespace

    there = ["config.json", "tokenizer.json", "merges.txt", "chat_template.jinja", "model.safetensors", "model.py"]
    there += ["pytorch_model.bin", "model.gguf", "onnx/config.json", "consolidated.safetensors", "README.md"]
    listed = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in there])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda self, *_, **__: listed)

    def download(repo, *, allow_patterns=None, ignore_patterns=None, local_files_only=False, **_):
        if local_files_only:
            raise OSError("not cached")
        taken.update(name for name in there if any(fnmatch.fnmatch(name, p) for p in allow_patterns))
        taken.difference_update([name for name in taken if any(fnmatch.fnmatch(name, p) for p in ignore_patterns)])
        return hub

    taken: set[str] = set()
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_model("them/new").path == hub
    assert taken == set(there[:5])
    taken.clear()
    find_model("them/new", ModelOptions(trust_remote_code=True))
    assert taken == set(there[:6])
    there[:] = ["model-q4.gguf", "README.md"]
    listed.siblings = [SimpleNamespace(rfilename=name) for name in there]
    with pytest.raises(UsageError, match=r"no \.safetensors file.*hf download them/new model-q4\.gguf"):
        find_model("them/new")


def test_a_misspelt_path_is_not_taken_for_a_hub_name(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny, tmp_path / "runs" / "first")
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(UsageError, match="did you mean 'runs/first'"):
        load_policy("runs/frist")
    with pytest.raises(UsageError, match="did you mean 'expert'"):
        load_policy("exprt")
    with pytest.raises(UsageError, match="is a file"):
        (tmp_path / "runs" / "x.txt").write_text("")
        load_policy("runs/x.txt")
    assert load_policy("runs/first").name == "first"
    assert all(map(is_hub_id, ("org/name", "org/name@v1.0")))
    assert not any(map(is_hub_id, ("./a", "a/b/c", "a", "runs/x.gguf")))
    assert not may_name_model("\0")
    assert not may_name_model("x" * 5000)


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"use_rslora": True, "target_modules": ["q_proj"]}])
def test_an_adapter_plays_as_its_base_with_the_adapter_merged(tiny, tmp_path, settings):
    import peft

    folder = adapter(tiny, tmp_path / "adapter", **settings)
    policy = load_local_policy(folder)
    assert type(policy.model).__name__ == "LlamaForCausalLM"  # an ordinary model again
    assert policy.name == "adapter"
    unmerged = peft.PeftModel.from_pretrained(load_model(tiny), folder).eval()
    torch.testing.assert_close(logits(policy.model), logits(unmerged), atol=2e-5, rtol=1e-4)
    assert (logits(policy.model) - logits(load_model(tiny))).abs().max() > 0.01  # and it is not nothing
    policy.model.save_pretrained(tmp_path / "saved")
    policy.tokenizer.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(load_model(tmp_path / "saved")), logits(policy.model))
    assert all(weight.requires_grad for weight in policy.model.parameters())


def test_an_adapter_finds_its_base_by_its_configuration_or_by_what_is_given(hub, tiny, tmp_path):
    folder = adapter(tiny, tmp_path / "adapter", tokenizer=True)
    wanted = logits(load_local_policy(folder).model)
    assert shapes(load_meta_model(folder)) == shapes(load_local_policy(folder).model)
    assert load_meta_model(folder, ModelOptions(dtype="bfloat16")).dtype is torch.bfloat16
    config = folder / "adapter_config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"base_model_name_or_path": "them/small"}))
    assert torch.equal(logits(load_local_policy(folder).model), wanted)
    config.write_text(json.dumps(values | {"base_model_name_or_path": "/gone"}))
    with pytest.raises(UsageError, match=r"; --adapter-base \(.*\) names another$"):
        load_local_policy(folder)
    given = ModelOptions(adapter_base=str(tiny))
    assert torch.equal(logits(load_local_policy(folder, given).model), wanted)
    assert load_tokenizer(folder, given).get_vocab() == load_tokenizer(tiny).get_vocab()


def test_an_adapter_on_the_hub_and_its_fingerprint(hub, tiny, tmp_path):
    local = adapter(tiny, tmp_path / "adapter")
    values = json.loads((local / "adapter_config.json").read_text())
    (local / "adapter_config.json").write_text(json.dumps(values | {"base_model_name_or_path": "them/small"}))
    cached(tmp_path, "them/adapter", local)
    policy = load_local_policy("them/adapter")
    assert torch.equal(logits(policy.model), logits(load_local_policy(local).model))
    of = {"revision": COMMIT, "adapter_base": "them/small", "adapter_base_revision": COMMIT}
    assert policy.runtime == {"device": "cpu", "dtype": "float32", **of}
    first = fingerprint("them/adapter")
    assert first == fingerprint(local) != fingerprint(tiny)
    other = adapter(tiny, tmp_path / "other", r=2)
    assert fingerprint(other) != first
    moved = tmp_path / "moved"
    shutil.copytree(tiny, moved)
    values = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(values | {"rms_norm_eps": 1e-3}))
    assert fingerprint(local, ModelOptions(adapter_base=str(moved))) != first  # its base is part of it


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_adapters_of_other_architectures(name, tmp_path):
    import peft

    ZOO[name]().bfloat16().save_pretrained(tmp_path / "base")
    folder = adapter(tmp_path / "base", tmp_path / "adapter")
    assert runtime(load_model(folder)) == {"device": "cpu", "dtype": "bfloat16"}
    full = ModelOptions(dtype="float32")
    unmerged = peft.PeftModel.from_pretrained(load_model(tmp_path / "base", full), folder).eval()
    torch.testing.assert_close(logits(load_model(folder, full)), logits(unmerged), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}])
def test_a_small_adapter_changes_a_base_in_bf16(tiny, tmp_path, settings):
    """Rounded to the nearest numbers hardly any of it would be there, and a tax would come out too small."""
    load_model(tiny, ModelOptions(dtype="bfloat16")).save_pretrained(tmp_path / "base")
    load_tokenizer(tiny).save_pretrained(tmp_path / "base")
    folder = adapter(tmp_path / "base", tmp_path / "adapter", std=3e-3, **settings)
    start = dict(load_model(tmp_path / "base").named_parameters())
    exact = dict(load_model(folder, ModelOptions(dtype="float32")).named_parameters())
    merged = load_model(folder)
    assert merged.dtype is torch.bfloat16

    def share(weights: dict[str, torch.Tensor]) -> float:
        """How much of the adapter's changes these weights have."""
        learned = {name: (exact[name].double() - start[name]).detach() for name in start}
        done = sum(((weights[name].double() - start[name]) * learned[name].sign()).sum().item() for name in start)
        return done / float(sum(change.abs().sum() for change in learned.values()))

    assert share(dict(merged.named_parameters())) == pytest.approx(1.0, abs=0.1)
    if not settings:  # DoRA scales columns as well
        assert share({name: weight.bfloat16() for name, weight in exact.items()}) < 0.7
    changed = [name for name in start if not torch.equal(exact[name], start[name].float())]
    assert all(torch.equal(merged.get_parameter(name), start[name]) for name in start if name not in changed)


@pytest.mark.parametrize(
    "name", ["mixtral", "gpt-oss", "deepseek-v3", "qwen3.5", "qwen3-next", "lfm2", "mamba2", "bloom"]
)
def test_every_supported_architecture_loads_from_its_files(name, tmp_path):
    """Files hold other names than models do: experts one by one, tied weights once, prefixes, older spellings."""
    model = ZOO[name]()
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(load_model(tmp_path)), logits(model), atol=1e-4, rtol=1e-4)


def test_number_formats_and_devices(tiny):
    assert runtime(load_model(tiny)) == {"device": "cpu", "dtype": "float32"}
    assert load_local_policy(tiny, ModelOptions("cpu", "bfloat16")).runtime == {"device": "cpu", "dtype": "bfloat16"}
    assert torch.isfinite(logits(load_model(tiny, ModelOptions("cpu", "float16")))).all()
    with pytest.raises(UsageError, match="unknown dtype 'float23'; did you mean 'float32'"):
        load_local_policy(tiny, ModelOptions(dtype="float23"))
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        load_local_policy(tiny, ModelOptions("gpu"))
    if not torch.cuda.is_available():
        for device in ("cuda", "cuda:7"):
            with pytest.raises(UsageError, match=f"device {device} is not there"):
                load_local_policy(tiny, ModelOptions(device))


def test_bf16_and_sharded_weights_are_loaded_as_stored(tiny, tmp_path):
    model = load_model(tiny, ModelOptions(dtype="bfloat16"))
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    load_tokenizer(tiny).save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle that nobody reads")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    again = load_local_policy(tmp_path)
    assert again.runtime["dtype"] == "bfloat16"
    assert torch.equal(logits(again.model), logits(model))
    links = tmp_path / "links"
    links.mkdir()
    for file in tmp_path.iterdir():
        if file.is_file():
            (links / file.name).symlink_to(file)
    assert torch.equal(logits(load_local_policy(links).model), logits(model))


@pytest.mark.slow
def test_a_gguf_file_is_an_ordinary_model(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    file = write_gguf(tmp_path / "base.gguf")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "base.gguf").write_bytes(b"another file of this name")
    monkeypatch.chdir(tmp_path / "here")
    policy, plain = load_local_policy(file), load_local_policy("base")
    assert policy.name == "base.gguf"
    torch.testing.assert_close(logits(policy.model), logits(plain.model), atol=1e-4, rtol=1e-4)
    text = "You see a box. <action> go north </action>"
    assert policy.tokenizer(text).input_ids == plain.tokenizer(text).input_ids
    assert policy.runtime == {"device": "cpu", "dtype": "float32"}
    assert shapes(load_meta_model(file)) == shapes(policy.model)
    policy.model.save_pretrained(tmp_path / "saved")  # nothing of its blocks is left
    policy.tokenizer.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(load_local_policy(tmp_path / "saved").model), logits(policy.model))
    assert fingerprint(file) == fingerprint(str(file)) != fingerprint("base")


def test_a_gguf_file_whose_positions_transformers_would_not_scale_is_refused(tmp_path):
    pytest.importorskip("gguf")
    file = write_gguf(tmp_path / "scaled.gguf", scale=8.0)
    with pytest.raises(UsageError, match=r"scales its positions \(linear by 8\)"):
        load_local_policy(file)


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "scale"), [(18, 640, 4, 256), (34, 2560, 8, 256), (62, 5376, 32, 168)]
)
def test_gemma_3_of_every_size_has_its_own_scale_of_attention(layers, hidden, heads, scale):
    from transformers import AutoConfig

    from gentax.models.checkpoint_check import Gguf, correct_gguf_config

    width = 128 if layers == 62 else 256
    config = AutoConfig.for_model(
        "gemma3_text", num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, head_dim=width
    )
    scaled = {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 8.0} if layers > 26 else {}
    correct_gguf_config(config, Gguf({"general.architecture": "gemma3", **scaled}, {}), Path("gemma.gguf"))
    assert config.query_pre_attn_scalar == scale
    rope = config.rope_parameters
    assert rope["full_attention"].get("factor") == (8.0 if scaled else None)
    assert rope["sliding_attention"]["rope_type"] == "default"


def test_results_record_device_and_dtype(toy, tiny, tmp_path):
    import gentax
    from gentax.evals.evaluate import evaluate
    from gentax.evals.probe import probe
    from gentax.rollouts import RolloutConfig

    half = ModelOptions("cpu", "bfloat16")
    short = {"config": RolloutConfig(horizon=2, max_new_tokens=4), "stop_if_unreadable": False}
    played = evaluate(tiny, ["toy"], tasks=2, model=half, **short).to_json()
    assert played["runtime"] == {"device": "cpu", "dtype": "bfloat16"}
    assert evaluate("random", ["toy"], tasks=2).to_json()["runtime"] is None
    (found,) = probe(["toy"], load_policy(tiny), trajectories=2, **short)
    assert found.to_json()["runtime"] == {"device": "cpu", "dtype": "float32"}
    assert type(found).from_json(found.to_json()).runtime == found.runtime
    settings = {
        "source": "toy",
        "targets": ["crafting"],
        "tasks": 2,
        "interim_analyses": 1,
        "config": short["config"],
    }
    report = gentax.tax("random", tiny, model=half, **settings).to_json()
    assert report["runtime"] == {"base": None, "tuned": {"device": "cpu", "dtype": "bfloat16"}}


def write_gguf(path: Path, scale: float | None = None) -> Path:
    """Write the shipped base model as a GGUF file, as llama.cpp's converter would."""
    import gguf

    model, tokenizer = load_model("base"), load_tokenizer("base")
    config, state = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    if scale is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scale)
    tokens = [tokenizer.convert_ids_to_tokens(i) for i in range(config.vocab_size)]
    added = tokenizer.get_added_vocab()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.USER_DEFINED if t in added else gguf.TokenType.NORMAL for t in tokens])
    merges = json.loads((BASE / "tokenizer.json").read_text())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) if isinstance(pair, list) else pair for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in state.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = weight.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            rows = array.shape[0] // heads // 2
            array = array.reshape(heads, 2, rows, -1).swapaxes(1, 2).reshape(array.shape)
        stem = name.removesuffix(".weight")
        writer.add_tensor(f"{names.get_name(stem)}.weight", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["gentax", "trl"])
def test_a_run_starts_from_an_adapter_merged_with_its_base(toy, tiny, tmp_path, trainer):
    """With a learning rate of next to nothing, so that what a run ends with shows where it began."""
    if trainer == "trl":
        pytest.importorskip("trl", reason="the extra gentax[trl] is not installed")
    from gentax.rollouts import RolloutConfig
    from gentax.training import TrainConfig, train

    folder = adapter(tiny, tmp_path / "adapter")
    wanted = logits(load_model(folder))
    config = TrainConfig(
        source="toy:one", model=str(folder), max_steps=1, tasks_per_step=1,
        num_generations=2,
        learning_rate=1e-9, eval_steps=0,
        rollout=RolloutConfig(temperature=1.0, max_new_tokens=2, horizon=1),
        precision="fp32", trainer=trainer,
    )  # fmt: skip
    trained = train(config, tmp_path / "run", device="cpu")
    torch.testing.assert_close(logits(load_model(trained)), wanted, atol=1e-4, rtol=1e-4)


def test_models_of_every_kind_are_merged(hub, tiny, tmp_path):
    from gentax.training.forgetting.merge import merge_models

    folder = adapter(tiny, tmp_path / "adapter")
    out = merge_models("them/small", [folder], "interpolate", tmp_path / "out", 1.0)
    torch.testing.assert_close(logits(load_model(out)), logits(load_model(folder)), atol=1e-5, rtol=1e-5)


def test_a_study_names_its_base_as_any_policy_and_hands_device_and_dtype_on(toy, hub, tiny):
    from gentax.core.settings import read_settings
    from gentax.studies.plan import make_plan
    from gentax.studies.study import Study

    values = {"name": "s", "domains": {"toy": {}, "crafting": {}}, "sources": ["toy"], "model": "them/small"}
    study = read_settings(Study, {**values, "device": "cpu", "dtype": "bfloat16"}, "study")
    made = study.train_config("toy", "plain", 0)
    assert (made.model, made.dtype) == ("them/small", "bfloat16")
    assert study.options == made.options("cpu") == ModelOptions("cpu", "bfloat16")
    inputs = next(iter(make_plan(study).init.values())).inputs
    assert (inputs["base"], inputs["dtype"]) == (fingerprint(tiny), "bfloat16")


def test_every_command_that_names_a_policy_says_how_it_is_loaded():
    import dataclasses

    import typer

    from gentax.cli.app import app

    commands = typer.main.get_command(app).commands
    asked = [commands[name] for name in ("evaluate", "tax", "probe", "diversity", "advise", "rollout", "play")]
    for command in [*asked, commands["base"].commands["build"]]:
        options = {option for parameter in command.params for option in parameter.opts}
        wanted = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(ModelOptions)}
        assert wanted <= options, command.name


def test_a_model_with_code_of_its_own_is_loaded_where_that_is_trusted(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    shutil.copytree(tiny, folder := tmp_path / "own")
    code = (
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class MineConfig(LlamaConfig):\n    model_type = 'mine'\n"
        "class MineForCausalLM(LlamaForCausalLM):\n    config_class = MineConfig\n"
    )
    (folder / "mine.py").write_text(code)
    auto = {"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.MineForCausalLM"}
    values = json.loads((folder / "config.json").read_text()) | {"model_type": "mine", "auto_map": auto}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match="trust_remote_code"):
        load_model(folder)
    trusted = ModelOptions(trust_remote_code=True)
    bare = load_meta_model(folder, trusted)  # first, as training does
    model = load_model(folder, trusted)
    assert type(model).__name__ == type(bare).__name__ == "MineForCausalLM"
    assert torch.equal(logits(model), logits(load_model(tiny)))
    assert shapes(bare) == shapes(model)
