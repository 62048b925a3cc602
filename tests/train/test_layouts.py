"""Layouts of students: the table against verl's own source, the documents, and tiny models."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from layouts import BUILDERS, write_layout
from PIL import Image

from rilbench.config import load_recipe
from rilbench.config.layouts import (
    LAYOUTS,
    REFUSED,
    check_layout,
    layout_of,
    note_on_layout,
    suited,
)
from rilbench.errors import UserError

VERL = Path(find_spec("verl").origin).parent
PAGE = Path(__file__).parents[2] / "docs" / "students.md"
UNSHARED = {"qwen3_5", "qwen3_5_moe", "gemma3", "gemma4"}


def processors_of_verl():
    source = (VERL / "utils" / "tokenizer" / "tokenizer.py").read_text()
    return set(re.findall(r'case "(\w+)":', source))


def test_every_layout_that_verl_has_a_processor_for_is_accepted_or_refused_with_a_reason():
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as MODELS,
    )
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    known = processors_of_verl()
    assert {"Qwen2VLProcessor", "Gemma4Processor"} <= known
    by_verl = {model for model in MODELS if PROCESSOR_MAPPING_NAMES.get(model) in known}
    assert by_verl <= LAYOUTS.keys() | REFUSED.keys()
    assert {name for name, layout in LAYOUTS.items() if layout.processor == "verl"} == (
        by_verl - REFUSED.keys()
    )
    assert not LAYOUTS.keys() & REFUSED.keys()


def test_verl_shows_a_blank_picture_where_the_table_says_so():
    source = (VERL / "models" / "transformers" / "monkey_patch.py").read_text()
    patched = {
        name
        for names in re.findall(r"model_type in \[([^\]]+)\]", source)
        for name in re.findall(r'"(\w+)"', names)
    }
    assert {name for name, layout in LAYOUTS.items() if layout.blanks} == patched


def test_every_layout_has_a_tiny_model():
    assert {build()[0].model_type for name, build in BUILDERS.items() if name != "smolvlm"} == (
        LAYOUTS.keys() - {"smolvlm"}
    )


def test_the_page_names_every_layout():
    rows = re.findall(r"^\| `(\w+)` \|(.*)$", PAGE.read_text(), re.M)
    said = dict(rows)
    assert len(rows) == len(said) == len(LAYOUTS) + len(REFUSED)
    for name, layout in LAYOUTS.items():
        shared = "no" if name in UNSHARED else "yes"
        packed = "yes" if layout.packs else "no"
        cells = [cell.strip() for cell in said[name].split("|")]
        tuned = "yes" if layout.fine_tunes else "no"
        assert cells[:5] == [layout.title, layout.processor, shared, packed, tuned], name
    for name, reason in REFUSED.items():
        assert reason in said[name]


@pytest.mark.parametrize("name", [*REFUSED, "llava_next"])
def test_what_is_refused_is_refused_with_the_reason(name):
    why = REFUSED.get(name, "verl 0.9.1 has no processor for it, and rilbench adds none")
    with pytest.raises(UserError, match=re.escape(why)) as told:
        layout_of(name)
    assert "; use one of qwen2_vl, " in str(told.value)
    assert "\n" not in str(told.value)


def test_stages_that_do_not_know_a_layouts_pictures_are_refused():
    tuned = load_recipe("72b", "nano", None, ["sft.steps=2"])
    for name, layout in LAYOUTS.items():
        if layout.needs and find_spec(layout.needs) is None:
            continue
        if layout.fine_tunes:
            check_layout(tuned, name)
        else:
            with pytest.raises(UserError, match=r"cannot be fine-tuned here.*sft\.steps=0"):
                check_layout(tuned, name)
    check_layout(load_recipe("72b", "nano"), "glm46v")
    with pytest.raises(UserError, match=r"GLM-4\.6V cannot be sampled on GPUs: vLLM"):
        check_layout(load_recipe("72b"), "glm46v")


def test_a_package_that_a_processor_needs_is_named(monkeypatch):
    monkeypatch.setattr("rilbench.config.layouts.find_spec", lambda _: None)
    with pytest.raises(UserError, match="SmolVLM2 needs a package: uv pip install num2words"):
        layout_of("smolvlm")


@pytest.fixture(scope="module", params=BUILDERS)
def student(request, tmp_path_factory):
    """A layout's name, and a tiny model of it."""
    if request.param == "smolvlm":
        pytest.importorskip("num2words")
    return request.param, write_layout(request.param, tmp_path_factory.mktemp(request.param))


def pictures(colour):
    return [Image.new("RGB", size, colour) for size in ((56, 56), (84, 140))]


def test_a_prompt_with_pictures_is_what_its_processor_makes_of_it(student):
    """Of two pictures, of one, and of none: one batch, read as each of them alone."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from rilbench.model.inputs import joined, picture_inputs

    _, path = student
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(path)

    def features(**inputs):
        made = model.get_image_features(**inputs).pooler_output
        return made.flatten(0, -2) if torch.is_tensor(made) else torch.cat(list(made))

    with torch.no_grad():
        prompts = [pictures("red"), pictures("blue")[:1], pictures("green")[1:]]
        each = [picture_inputs(processor, images) for images in prompts]
        alone = torch.cat([features(**inputs) for inputs in each])
        assert torch.allclose(features(**joined(each)), alone, atol=1e-5)
    for images, inputs in zip(prompts, each, strict=True):
        shown = [{"role": "user", "content": [*[{"type": "image"}] * len(images)]}]
        text = processor.apply_chat_template(shown, tokenize=False)
        ids = processor(text=[text], images=images, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            assert (ids == model.config.image_token_id).sum() == len(features(**inputs))


def test_the_cpus_engine_samples_by_what_it_sees(student):
    """Rows of one batch, with two pictures, with one and with none, as each of them alone."""
    import asyncio

    from rilbench.model.batch_server import Request
    from rilbench.model.generation import Generator
    from rilbench.train.verl.model_families import StudentModel, marked_prompt

    _, path = student
    generator = Generator(str(path), 6)
    processor = StudentModel(path=str(path)).processor
    sampling = {"temperature": 0.0, "ignore_eos": True}

    def request(images):
        content = [*[{"type": "image"}] * len(images), {"type": "text", "text": "What is it?"}]
        messages = [{"role": "user", "content": content}]
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = processor(text=[text], images=images or None)["input_ids"][0]
        assert images or list(ids) == marked_prompt(processor, messages)
        answer = asyncio.new_event_loop().create_future()
        return Request(list(ids), sampling, images, answer)

    asked = [request(images) for images in (pictures("red"), pictures("blue")[1:], [])]
    together = generator.generate(asked)
    assert together == [generator.generate([each])[0] for each in asked]
    assert {len(tokens) for tokens, _ in together} == {6}


def test_each_layout_gets_the_settings_that_it_needs(student):
    name, path = student
    recipe = load_recipe("both", "qwen2.5-vl-3b")
    changed = suited(recipe, path)
    assert changed.hardware.share_prompts == (name not in UNSHARED)
    assert changed.hardware.remove_padding == (name not in UNSHARED)
    assert changed.fingerprint == recipe.fingerprint
    note = note_on_layout(recipe, path)
    assert bool(note) == (name in UNSHARED)
    assert not note or "hardware.share_prompts=false" in note
    quiet = load_recipe("both", "qwen2.5-vl-3b", None, ["hardware.share_prompts=false"])
    assert note_on_layout(quiet, path) == ""


def test_a_text_begins_with_one_bos_token(tmp_path):
    """Where tokenizer and chat template write it, as Gemma's do."""
    from transformers import AutoProcessor

    from rilbench.train.verl.model_families import StudentModel, marked_prompt

    write_layout("gemma3", tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    tokenizer = processor.tokenizer
    tokenizer.add_special_tokens({"bos_token": "<|endoftext|>"})
    tokenizer.add_bos_token = True
    processor.chat_template = "{{ bos_token }}" + processor.chat_template
    processor.save_pretrained(tmp_path)
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    student = StudentModel(path=str(tmp_path))
    messages = [{"role": "user", "content": [{"type": "text", "text": "What?"}]}]
    tokens = marked_prompt(student.processor, messages)
    assert tokens.count(tokenizer.bos_token_id) == 1
    assert tokens[0] == tokenizer.bos_token_id
