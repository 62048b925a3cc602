"""A small copy of every public layout, made here, and what the command makes of it."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.data.question_files import read_questions

DOCS = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def picture():
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).save(stream, "PNG")
    return stream.getvalue()


PICTURE = picture()
CELL = {"bytes": PICTURE, "path": "1.png"}
FIRST = "data/train-00000-of-00001.parquet"
LETTER = "Which letter?\nA. x\nB. y"


def parquet(place, *rows, name=FIRST, schema=None):
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema), place / name)


def lines(place, *rows, name="train.jsonl"):
    (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def images(place, *names):
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(PICTURE)


def llava_turns(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def user(content):
    return [{"role": "user", "content": content}]


def verl(place):
    """As verl's examples/data_preprocess/geo3k.py writes it."""
    row = {
        "data_source": "hiyouga/geometry3k",
        "prompt": user("<image>Find x. You FIRST think about the reasoning process"),
        "images": [CELL],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {"split": "train", "index": 0, "answer": "3 cm", "question": "Find x."},
    }
    parquet(place, row, name="train.parquet")


def easyr1(place):
    parquet(place, {"images": [CELL, CELL], "problem": "<image><image>Find x.", "answer": "3"})


def trl(place):
    parquet(place, {"image": CELL, "prompt": user("Find x."), "solution": "<answer>3</answer>"})


def swift(place):
    images(place, "1.png")
    system = {"role": "system", "content": "You are helpful."}
    said = {"role": "assistant", "content": "a cat"}
    lines(
        place,
        {"messages": [system, *user("<image>What?"), said], "images": ["1.png"]},
        {"messages": user("<image>What?"), "images": ["1.png"], "solution": "a dog"},
        {"messages": user("<image>What?"), "images": [str(place / "1.png")], "solution": "a cow"},
    )


def llama_factory(place):
    images(place, "mllm_demo_data/1.jpg")
    said = {"role": "assistant", "content": "Kane."}
    entry = {"messages": [*user("<image>Who?"), said], "images": ["mllm_demo_data/1.jpg"]}
    (place / "mllm_demo.json").write_text(json.dumps([entry]))


def alpaca(place):
    images(place, "1.jpg")
    entry = {"instruction": "Who?", "input": "<image>", "output": "Kane", "images": ["1.jpg"]}
    (place / "data.json").write_text(json.dumps([entry]))


def mmpr(place):
    images(place, "images/1.png")
    asked = "<image>\nHow many?\nPlease answer step by step and end with 'Final Answer: ***'"
    row = {"image": "images/1.png", "question": asked, "rejected": "Final Answer: 4"}
    caption = "A long description of all that can be seen. " * 5
    lines(
        place,
        {**row, "chosen": "One, two, three.\n\n**Final Answer:** 3"},
        {**row, "chosen": caption},
        name="m3cot.jsonl",
    )


def mm_eureka(place):
    images(place, "1.png")
    link = f"file://{(place / '1.png').absolute()}"
    content = [{"type": "image", "image": link}, {"type": "text", "text": "Question: find x"}]
    row = {"id": "0", "conversations": json.dumps(user(content)), "answer": "42"}
    lines(place, {**row, "image_urls": [link]}, name="dataset.jsonl")


def scienceqa(place):
    row = {
        "image": CELL,
        "question": "Which is farthest north?",
        "choices": ["Maine", "Ohio"],
        "answer": 0,
        "hint": "Look at the map.",
        "lecture": "Maps have directions.",
        "solution": "To find the answer, look at the compass rose.",
    }
    parquet(place, row, {**row, "image": None})


def aokvqa(place):
    row = {
        "image": CELL,
        "question_id": "22M",
        "question": "What is he waiting for?",
        "choices": ["train", "cab"],
        "correct_choice_idx": 1,
        "direct_answers": "['ride', 'bus']",
        "rationales": ["He has bags."],
    }
    parquet(place, row)


def onevision(place):
    row = {"id": "0", "image": CELL, "conversations": llava_turns(f"<image>\n{LETTER}", "B")}
    for name in ("ai2d(cauldron)", "chartqa(cauldron)"):
        parquet(place, {**row, "data_source": name}, name=f"{name}/train-00000-of-00001.parquet")
    text = {"id": "0", "conversations": llava_turns("Hello", "Hi"), "data_source": "magpie"}
    parquet(place, text, name="magpie(text_only)/train-00000-of-00001.parquet")


def llava(place):
    images(place, "train2017/1.jpg")
    turns = llava_turns("What colour?\n<image>", "Red.") + llava_turns("And the sky?", "Blue.")
    entry = {"id": "000", "image": "1.jpg", "conversations": turns}
    (place / "llava_instruct_150k.json").write_text(json.dumps([entry]))


def sharegpt4v(place):
    images(place, "data/coco/1.jpg")
    seen = {"id": "9", "image": "coco/1.jpg", "conversations": llava_turns("<image>\nWhat?", "y")}
    text = {"id": "w", "model": "", "conversations": llava_turns("How?", "So.")}
    (place / "mix665k.json").write_text(json.dumps([seen, text]))


def cauldron(place):
    row = {"images": [CELL], "texts": [{"user": LETTER, "assistant": "Answer: B", "source": "x"}]}
    parquet(place, row, name="ai2d/train-00000-of-00001.parquet")


def r1_8k(place):
    row = {"image": CELL, "problem": "Find x", "solution": "<think>…</think> <answer> 3 </answer>"}
    parquet(place, {**row, "original_question": "Find x", "original_answer": "3"})


def r1_v(place):
    parquet(place, {"image": CELL, "problem": "How many?", "solution": "<answer> 3 </answer>"})


def mmk12(place):
    row = {"id": "1", "question": "Find <image> x", "answer": "B", "subject": "math"}
    parquet(place, {**row, "image": CELL})


def virl39k(place):
    images(place, "images/1.png")
    row = {"question": "<image>Find x", "answer": "\\boxed{3}", "source": "MMR1", "qid": "q1"}
    parquet(place, {**row, "image": ["images/1.png"]}, name="39Krelease.parquet")


def vlm_r1(place):
    images(place, "1.png")
    row = {"id": 1, "image": "1.png", "conversations": llava_turns("<image>What?", "42")}
    lines(place, {**row, "accu_reward_method": "default"}, name="rec.jsonl")


def chartqa(place):
    parquet(place, {"image": CELL, "query": "How many?", "label": ["3"], "human_or_machine": 0})


def links(place):
    disk = place.with_name("disk")
    images(disk, "1.png")
    place.mkdir(exist_ok=True)
    (place / "images").symlink_to(disk)
    row = {"id": "1", "image": "images/1.png", "question": "What?", "answer": "a"}
    lines(place, row, name="q.jsonl")


WITH_ALL = "You FIRST think about the reasoning process"
CASES = (
    ("verl", verl, "", [(f"Find x. {WITH_ALL}", "3")]),
    (
        "verl",
        verl,
        "--columns question=extra_info.question,answer=extra_info.answer",
        [("Find x.", "3 cm")],
    ),
    ("EasyR1", easyr1, "", [("<image><image>Find x.", "3")]),
    ("TRL", trl, "", [("Find x.", "3")]),
    ("ms-swift", swift, "", [("What?", "a cat"), ("What?", "a dog")]),
    ("ms-swift", swift, "--images {}", [("What?", f"a {it}") for it in ("cat", "dog", "cow")]),
    ("LLaMA-Factory", llama_factory, "", [("Who?", "Kane.")]),
    ("LLaMA-Factory", alpaca, "", [("Who?", "Kane")]),
    (
        "MMPR",
        mmpr,
        "",
        [("How many?\nPlease answer step by step and end with 'Final Answer: ***'", "3")],
    ),
    ("MM-Eureka", mm_eureka, "--images /", [("Question: find x", "42")]),
    (
        "ScienceQA",
        scienceqa,
        "",
        [("Look at the map.\nWhich is farthest north?\nA. Maine\nB. Ohio", "A")],
    ),
    ("A-OKVQA", aokvqa, "", [("What is he waiting for?\nA. train\nB. cab", "B")]),
    ("LLaVA-OneVision", onevision, "", [(LETTER, "B"), (LETTER, "B")]),
    ("LLaVA-Instruct", llava, "--images {}/train2017", [("What colour?", "Red.")]),
    (
        "LLaVA-Instruct",
        llava,
        "--images {}/train2017 --turns all",
        [("What colour?", "Red."), ("And the sky?", "Blue.")],
    ),
    ("ShareGPT4V", sharegpt4v, "--images {}/data", [("What?", "y")]),
    ("The Cauldron", cauldron, "", [(LETTER, "Answer: B")]),
    ("multimodal-open-r1", r1_8k, "", [("Find x", "3")]),
    ("R1-V", r1_v, "", [("How many?", "3")]),
    ("MMK12", mmk12, "", [("Find <image> x", "B")]),
    ("ViRL39K", virl39k, "", [("Find x", "3")]),
    ("VLM-R1", vlm_r1, "", [("What?", "42")]),
    ("ChartQA", chartqa, "", [("How many?", "3")]),
    ("links", links, "--follow-links", [("What?", "a")]),
)


@pytest.mark.parametrize(("name", "write", "options", "expected"), CASES)
def test_a_public_layout(tmp_path, name, write, options, expected):
    place = tmp_path / "set"
    place.mkdir()
    write(place)
    command = ["data", "import", str(place), "--out", str(tmp_path / "q.parquet")]
    done = CliRunner().invoke(app, [*command, *options.format(place).split()])
    assert done.exit_code == 0, done.exception
    found = read_questions(tmp_path / "q.parquet")
    assert [(q.question, q.answer) for q in found] == expected
    assert all(set(q.images) == {PICTURE} for q in found)
    assert done.stdout.startswith("layout ")
    assert f"  {found[0].id} (" in done.stdout, "the imported questions are shown"
    assert f"| {name}" in DOCS or name == "links"


def test_a_link_out_of_the_folder_needs_the_option(tmp_path):
    links(tmp_path / "set")
    command = ["data", "import", str(tmp_path / "set"), "--out", str(tmp_path / "q.parquet")]
    done = CliRunner().invoke(app, command)
    assert str(done.exception).count("--follow-links") == 1


def test_configurations_are_sources_and_files_of_text_are_named(tmp_path):
    onevision(tmp_path / "set")
    command = ["data", "import", str(tmp_path / "set"), "--out", str(tmp_path / "q.parquet")]
    done = CliRunner().invoke(app, command)
    assert [(q.id, q.source) for q in read_questions(tmp_path / "q.parquet")] == [
        ("0", "ai2d(cauldron)"),
        ("0#2", "chartqa(cauldron)"),
    ]
    (said,) = done.stderr.splitlines()
    assert "magpie(text_only)/train-00000-of-00001.parquet: it has no image" in said
    assert done.stdout.splitlines()[-1].endswith("1 duplicate ids got a number; 1 files not used")


def test_several_sources_are_one_set(tmp_path):
    for name, write in (("a", scienceqa), ("b", swift), ("c", chartqa)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    sources = [str(tmp_path / name) for name in "abc"]
    command = ["data", "import", *sources, "--out", str(tmp_path / "q.parquet")]
    done = CliRunner().invoke(app, command)
    assert done.stdout.count("layout ") == 4, "ms-swift's rows have two sets of columns"
    found = read_questions(tmp_path / "q.parquet")
    assert [q.source for q in found] == ["a", "b", "b", "c"]
