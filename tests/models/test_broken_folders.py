"""Model folders that are broken or hostile: each is refused in one line that says what is wrong, at once."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from gentax.core import UsageError
from gentax.models.checkpoint_check import check_config
from gentax.models.options import ModelOptions
from gentax.policies.load import load_policy

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def header_of(folder: Path) -> tuple[dict, bytes]:
    raw = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write(folder: Path, header: object, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data)


def json_file(name, changes):
    """Change keys of a JSON file."""

    def mutate(folder):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | changes))

    return mutate


def config(**changes):
    return json_file("config.json", changes)


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def cut(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def sharded(files, lacking=()):
    """Replace the weights by an index that names `files` in turn, and the one shard that is there."""

    def mutate(folder):
        header, _ = header_of(folder)
        (folder / WEIGHTS).rename(folder / "model-1.safetensors")
        names = [name for name in header if name != "__metadata__"]
        placed = {name: files[n % len(files)] for n, name in enumerate(names)}
        (folder / INDEX).write_text(json.dumps({"weight_map": placed | dict.fromkeys(lacking, files[0])}))

    return mutate


def tensors(change):
    """Change the weights, a dict of arrays by name."""

    def mutate(folder):
        from safetensors.numpy import load_file, save_file

        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, {"format": "pt"})

    return mutate


def only_a_pickle(folder):
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch was_run'\ntR.")


def many_tokens(folder):
    values = json.loads((folder / "tokenizer.json").read_text())
    values["added_tokens"].append({**values["added_tokens"][0], "id": 50_000, "content": "<far>"})
    values["model"]["vocab"]["<far>"] = 50_000
    (folder / "tokenizer.json").write_text(json.dumps(values))


def large(folder):
    """Weights of a terabyte, in a file with a hole."""
    values = json.loads((folder / "config.json").read_text())
    rows = 10**12 // (4 * values["hidden_size"])
    header, _ = header_of(folder)
    grown = 4 * rows * values["hidden_size"]
    at = 0
    for name in [name for name in header if name != "__metadata__"]:
        entry = header[name]
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        if "embed_tokens" in name or "lm_head" in name:
            entry["shape"], size = [rows, values["hidden_size"]], grown
        entry["data_offsets"] = [at, at + size]
        at += size
    write(folder, header, b"")
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(file.seek(0, 2) + at)
    config(vocab_size=rows)(folder)


Q = "model.layers.0.self_attn.q_proj.weight"
DEEP = "[" * 100_000 + "]" * 100_000

BROKEN = {  # name: (what is done to the folder, what the message says)
    "empty weights": (text(WEIGHTS, ""), "no whole safetensors"),
    "weights cut in half": (cut, "no whole safetensors"),
    "no tensors": (lambda f: write(f, {}, b""), "tensors"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "no other format"),
    "a pickle instead of weights": (only_a_pickle, "pickle"),
    "an index outside the folder": (sharded(["../model.safetensors"]), "no .safetensors file of the folder"),
    "an index with a shard that is missing": (sharded(["model-1.safetensors", "model-2.safetensors"]), "model-2"),
    "an index without a map": (lambda f: (sharded(["a"])(f), (f / INDEX).write_text("{}")), "no weight_map"),
    "a tensor left out": (tensors(lambda weights: weights.pop(Q)), "lack"),
    "a tensor too many": (tensors(lambda weights: weights.update(extra=np.zeros(4, np.float32))), "no place"),
    "weights that are no numbers": (tensors(lambda weights: weights[Q].fill(np.nan)), "not finite"),
    "config: null": (text("config.json", "null"), "JSON object"),
    "config: nested without end": (text("config.json", f'{{"a": {DEEP}}}'), "nested too deeply"),
    "config: 8 MB": (text("config.json", json.dumps({"a": "b" * (8 << 20)})), "MB"),
    "config: no type": (text("config.json", "{}"), "model_type"),
    "config: a type that is none": (config(model_type="lama"), "did you mean 'llama'"),
    "config: code of its own": (config(model_type="mine", auto_map={"AutoConfig": "evil.Config"}), "trust_remote_code"),
    "config: an encoder": (config(model_type="bert", architectures=["BertForMaskedLM"]), "no causal language model"),
    "config: a classifier": (config(architectures=["LlamaForSequenceClassification"]), "no causal language model"),
    "config: architectures that are a number": (config(architectures=7), "no causal language model"),
    "config: no layers": (config(num_hidden_layers=0), "no place"),
    "config: layers that are a word": (config(num_hidden_layers="many"), "."),
    "config: another layer": (config(num_hidden_layers=5), "lack"),
    "config: 10^15 layers": (config(num_hidden_layers=10**15), "layers"),
    "config: no heads": (config(num_attention_heads=0, num_key_value_heads=0), "a size that is 0"),
    "config: a hidden size of 10^30": (config(hidden_size=10**30), "."),
    "config: another width": (config(intermediate_size=100), "in the weights"),
    "config: a function that is none": (config(hidden_act="exec"), "exec"),
    "config: rope that is none": (config(rope_parameters={"rope_type": "nope", "rope_theta": "x"}), "."),
    "config: code on a hub": (config(_attn_implementation="some/kernel"), "not run"),
    "config: weights of its own": (config(transformers_weights="../x.bin"), "not read"),
    "config: another number format": (config(dtype="float99"), "."),
    "config: bitsandbytes": (
        config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "bitsandbytes",
    ),
    "config: GPTQ": (config(quantization_config={"quant_method": "gptq", "bits": 4}), "."),
    "config: Mixtral with a million experts": (
        config(model_type="mixtral", architectures=["MixtralForCausalLM"], num_local_experts=10**6), ".",
    ),
    "a terabyte of weights": (large, r"\d{4}\.\d GB"),
    "tokenizer: broken": (text("tokenizer.json", '{"version": "1.0", "model": 3'), "cannot load the tokenizer"),
    "tokenizer: nested without end": (text("tokenizer.json", f'{{"a": {DEEP}}}'), "cannot load the tokenizer"),
    "tokenizer: missing": (
        lambda f: [(f / n).unlink(missing_ok=True) for n in ("tokenizer.json", "tokenizer_config.json")],
        "no tokenizer.json",
    ),
    "tokenizer: more tokens than embeddings": (many_tokens, "embeddings"),
    "tokenizer: code of its own": (
        json_file("tokenizer_config.json", {
            "tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]},
        }), "tokenizer",
    ),
    "tokenizer: a chat template that is a number": (
        lambda f: ((f / "chat_template.jinja").unlink(), json_file("tokenizer_config.json", {"chat_template": 7})(f)),
        "chat template of model is '7', which is no text",
    ),
    "tokenizer: a length that is a word": (
        json_file("tokenizer_config.json", {"model_max_length": "long"}), "cannot load the tokenizer",
    ),
    "generation: an end that is no token": (
        text("generation_config.json", '{"eos_token_id": [[1], 2]}'), "no id of a token",
    ),
    "tokenizer settings: null": (text("tokenizer_config.json", "null"), "cannot load the tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_in_one_line(tiny, tmp_path, capfd, name):
    change, says = BROKEN[name]
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    change(folder)
    capfd.readouterr()
    with pytest.raises(UsageError, match=says) as refused:
        load_policy(str(folder))
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert len(message) < 700
    assert "model" in message
    assert capfd.readouterr() == ("", "")  # nothing but the one line reaches the terminal


ADAPTER = {  # name: (changes of adapter_config.json, what the message says)
    "null": ("null", "JSON object"),
    "a type that is none": ({"peft_type": "LORAA"}, "did you mean 'LORA'"),
    "prompt tuning": ({"peft_type": "PROMPT_TUNING"}, "cannot be merged"),
    "a rank of a billion": ({"r": 10**9}, "does not fit"),
    "modules that the model lacks": ({"target_modules": ["c_attn"]}, "does not fit"),
    "modules that have no weights": ({"target_modules": ["q_proj", "o_proj"]}, "lacks"),
    "no base": ({"base_model_name_or_path": None}, "--adapter-base"),
    "a base that is missing": ({"base_model_name_or_path": "/nowhere/model"}, "not there"),
    "a base that is a hub name": ({"base_model_name_or_path": "nobody/nothing"}, "hf download nobody/nothing"),
    "itself as base": ({"base_model_name_or_path": "."}, "is an adapter itself|not there"),
    "code to import": ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "not supported"),
    "layers again and again": ({"layer_replication": [[0, 2]] * 1000}, "not supported"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "plain LoRA"),
}


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory) -> Path:
    """A LoRA adapter for the tiny model."""
    import peft

    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    wrapped = peft.get_peft_model(load_policy(tiny).model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    wrapped.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ADAPTER)
def test_a_broken_adapter_is_refused_in_one_line(adapter, tmp_path, monkeypatch, capfd, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    changes, says = ADAPTER[name]
    folder = tmp_path / "adapter"
    shutil.copytree(adapter, folder)
    if changes == "null":
        (folder / "adapter_config.json").write_text(changes)
    else:
        values = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(values | changes))
    capfd.readouterr()
    with pytest.raises(UsageError, match=says) as refused:
        load_policy(folder)
    assert len(str(refused.value).splitlines()) == 1
    assert "adapter" in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_adapters_without_safetensors_and_of_other_models_are_refused(adapter, tiny, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(adapter, folder)
    with pytest.raises(UsageError, match=r"does not fit its model.*size mismatch"):
        load_policy(folder, ModelOptions(adapter_base="base"))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UsageError, match=r"adapter without adapter_model\.safetensors"):
        load_policy(folder)
    shutil.copytree(adapter, tmp_path / "both")
    shutil.copytree(tiny, tmp_path / "both", dirs_exist_ok=True)
    with pytest.raises(UsageError, match="both an adapter and a whole model"):
        load_policy(tmp_path / "both")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no whole GGUF file"),
        (b"GGML" + b"\0" * 100, "no whole GGUF file.*magic"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 1 << 60, 0), "no whole GGUF file"),
        # a key "a" whose value is an array of 2^60 bytes
        (struct.pack("<4sIQQQcIIQ", b"GGUF", 3, 0, 1, 1, b"a", 9, 0, 1 << 60), "longer than it is"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 0) + b"\0" * 16, "architecture"),
    ],
)
def test_a_broken_gguf_file_is_refused_in_one_line(tmp_path, capfd, content, says):
    pytest.importorskip("gguf")
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=says) as refused:
        load_policy(file)
    assert len(str(refused.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_a_vocabulary_per_layer_is_not_taken_for_a_number_of_layers():
    """As Gemma 3n and the small models of Gemma 4 have it."""
    check_config({"model_type": "gemma3n_text", "vocab_size_per_layer_input": 262144}, {"a": None}, "a model")
