import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from rilbench.checkpoint import Labels, inspect_checkpoint, write_labels
from rilbench.errors import UserError

CONFIG = {"model_type": "qwen2_5_vl", "vision_config": {"depth": 2}, "text_config": {}}
LABELS = Labels("nano", "ril", "72b", run="r-17", start_fingerprint="0123456789abcdef")


def tensors(*names):
    return {name: np.arange(6, dtype=np.float32).reshape(2, 3) + len(name) for name in names}


def make(folder: Path, *, sharded: bool = False) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text("{}")
    if sharded:
        shards = {"model-1-of-2.safetensors": ["a", "bb"], "model-2-of-2.safetensors": ["ccc"]}
        for name, keys in shards.items():
            save_file(tensors(*keys), folder / name)
        index = {"weight_map": {key: name for name, keys in shards.items() for key in keys}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(tensors("a", "bb"), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(params=[False, True], ids=["one file", "shards"])
def model(request, tmp_path):
    return make(tmp_path / "nano", sharded=request.param)


def last_weights(model: Path) -> Path:
    return sorted(model.glob("*.safetensors"))[-1]


def refused(folder, *words):
    with pytest.raises(UserError) as caught:
        inspect_checkpoint(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message, "no remedy"
    for word in words:
        assert word in message, message


def test_a_whole_checkpoint(model):
    found = inspect_checkpoint(str(model))
    assert found.path == model.resolve()
    assert found.model_type == "qwen2_5_vl"
    assert found.labels == Labels(student="nano", method="base", teacher="none")
    assert len(found.fingerprint) == 16
    int(found.fingerprint, 16)


def test_other_names_of_tokenizer_and_processor(model):
    (model / "tokenizer.json").rename(model / "tokenizer_config.json")
    (model / "preprocessor_config.json").rename(model / "processor_config.json")
    inspect_checkpoint(model)


def test_labels_round_trip(model):
    before = inspect_checkpoint(model)
    files = set(model.iterdir())
    write_labels(model, LABELS)
    after = inspect_checkpoint(model)
    assert after.labels == LABELS
    assert after.fingerprint == before.fingerprint
    assert set(model.iterdir()) == files | {model / "rilbench.json"}
    write_labels(model, Labels("other", "sft", "none"))
    assert inspect_checkpoint(model).labels == Labels("other", "sft", "none")


def test_labels_need_a_folder(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        write_labels(tmp_path / "none", LABELS)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ('{"student": "a", "method": "ril"}', "'teacher'"),
        ('{"student": "a", "method": "ril", "teacher": 3}', "'teacher'"),
        ('{"student": "a", "method": "ril", "teacher": "72b", "color": "red"}', "'color'"),
        ('{"student": null, "method": "ril", "teacher": "72b"}', "'student'"),
    ],
)
def test_damaged_labels(model, text, word):
    (model / "rilbench.json").write_text(text)
    refused(model, "rilbench.json", word)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), sharded=st.booleans())
def test_weights_cut_anywhere(tmp_path_factory, data, sharded):
    model = make(tmp_path_factory.mktemp("cut") / "nano", sharded=sharded)
    file = last_weights(model)
    whole = file.read_bytes()
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    refused(model, file.name, "truncated", "again")
    file.write_bytes(whole)
    inspect_checkpoint(model)


def test_weights_too_long(model):
    with last_weights(model).open("ab") as stream:
        stream.write(b"\0")
    refused(model, last_weights(model).name, "too long")


@pytest.mark.parametrize(
    "header",
    [b"not json", b"\xff\xfe", b"[]", b'{"a": 1}', b'{"a": {}}', b'{"a": {"data_offsets": "x"}}',
     b'{"a": {"data_offsets": [0, "x"]}}', b'{"a": {"data_offsets": [0, Infinity]}}'],
)  # fmt: skip
def test_damaged_header(model, header):
    last_weights(model).write_bytes(len(header).to_bytes(8, "little") + header)
    refused(model, last_weights(model).name, "header")


def test_a_pointer_instead_of_weights(model):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    last_weights(model).write_text(text)
    refused(model, last_weights(model).name, "git lfs pull")


def test_a_file_without_weights(tmp_path):
    model = make(tmp_path / "nano")
    save_file({}, model / "model.safetensors")
    refused(model, "model.safetensors", "no weights")


def test_index_and_shards_must_agree(tmp_path):
    model = make(tmp_path / "nano", sharded=True)
    file = model / "model-2-of-2.safetensors"
    save_file(tensors("x"), file)
    refused(model, file.name, "ccc")
    file.unlink()
    refused(model, file.name, "missing")


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"a": 1}},
              {"weight_map": {"a": "../model.safetensors"}}]
)  # fmt: skip
def test_damaged_index(tmp_path, index):
    model = make(tmp_path / "nano", sharded=True)
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(model, "model.safetensors.index.json", "weight_map")


def test_one_file_wins_over_an_index(tmp_path):
    model = make(tmp_path / "nano")
    expected = inspect_checkpoint(model).fingerprint
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone"}}')
    assert inspect_checkpoint(model).fingerprint == expected


def test_only_safetensors_is_read(tmp_path):
    model = make(tmp_path / "nano")
    (model / "model.safetensors").unlink()
    refused(model, "model.safetensors", "no weights", "save_pretrained")
    (model / "pytorch_model.bin").write_bytes(b"\0")
    refused(model, "pytorch_model.bin", "safetensors", "save_pretrained")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("config.json", ["config.json", "missing"]),
        ("tokenizer.json", ["tokenizer.json or tokenizer_config.json"]),
        ("preprocessor_config.json", ["preprocessor_config.json or processor_config.json"]),
    ],
)
def test_missing_and_damaged_pieces(model, file, words):
    whole = (model / file).read_text()
    (model / file).write_text(whole[:-1])
    refused(model, file, "JSON")
    (model / file).unlink()
    refused(model, *words)


def test_a_model_that_reads_no_images(model):
    (model / "config.json").write_text('{"model_type": "qwen2"}')
    refused(model, "config.json", "vision_config", "qwen2", "vision-language")


def test_a_config_without_a_type(model):
    (model / "config.json").write_text('{"vision_config": {}}')
    refused(model, "config.json", "model_type")


def test_no_folder(tmp_path):
    refused(tmp_path / "none", "none", "does not exist")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is not a folder")


@settings(max_examples=25, deadline=None)
@given(data=st.data(), sharded=st.booleans())
def test_the_fingerprint_changes_with_any_byte_of_the_data(tmp_path_factory, data, sharded):
    model = make(tmp_path_factory.mktemp("byte") / "nano", sharded=sharded)
    before = inspect_checkpoint(model).fingerprint
    file = last_weights(model)
    whole = bytearray(file.read_bytes())
    first = 8 + int.from_bytes(whole[:8], "little")
    whole[data.draw(st.integers(first, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(whole)
    assert inspect_checkpoint(model).fingerprint != before


def test_the_fingerprint_is_of_config_and_weights_alone(model, tmp_path):
    before = inspect_checkpoint(model).fingerprint
    (model / "README.md").write_text("hello")
    (model / "tokenizer.json").write_text('{"more": 1}')
    assert inspect_checkpoint(model).fingerprint == before
    moved = model.rename(tmp_path / "elsewhere")
    assert inspect_checkpoint(moved).fingerprint == before
    (moved / "config.json").write_text(json.dumps({**CONFIG, "extra": 1}))
    assert inspect_checkpoint(moved).fingerprint != before


def test_it_needs_no_torch():
    code = "import sys, rilbench.checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
