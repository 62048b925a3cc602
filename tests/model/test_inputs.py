"""The end of a turn: what the chat template writes, whatever the tokenizer calls its end."""

import pytest
from transformers import AutoProcessor

from rilbench.model.inputs import (
    cut_response,
    end_turns_as_template,
    never_sampled,
    teacher_tokens,
)
from rilbench.paths import locate

ENDS_ITS_TURN = "<|im_end|>"
BEGINS_THE_NEXT = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}"""
"""As GLM-V's: a response ends where the next turn begins."""


@pytest.fixture
def processor():
    return AutoProcessor.from_pretrained(locate("nano:restyled"))


@pytest.mark.parametrize("named", [ENDS_ITS_TURN, "<|vision_end|>"])
def test_the_end_is_the_templates_and_may_be_sampled(processor, named):
    tokenizer = processor.tokenizer
    end = tokenizer.convert_tokens_to_ids(ENDS_ITS_TURN)
    tokenizer.eos_token = named
    end_turns_as_template(processor, tokenizer)
    assert tokenizer.eos_token_id == end
    assert end not in never_sampled(tokenizer)
    assert tokenizer.convert_tokens_to_ids("<|vision_end|>") in never_sampled(tokenizer)
    assert teacher_tokens(tokenizer, "yes", 99)[-1] == end


def test_the_end_may_be_the_start_of_the_next_turn(processor):
    processor.chat_template = BEGINS_THE_NEXT
    end_turns_as_template(processor, processor.tokenizer)
    assert processor.tokenizer.eos_token == "<|im_start|>"


def test_a_template_without_special_tokens_leaves_the_end_as_it_is(processor):
    processor.chat_template = BEGINS_THE_NEXT.replace("<|im_start|>", "")
    end_turns_as_template(processor, processor.tokenizer)
    assert processor.tokenizer.eos_token == ENDS_ITS_TURN


def test_a_response_is_cut_as_in_the_loop_and_a_short_one_stays(processor):
    tokenizer = processor.tokenizer
    long = "three boxes, " * 50
    cut = cut_response(tokenizer, long, 20)
    assert long.startswith(cut)
    assert cut == tokenizer.decode(teacher_tokens(tokenizer, long, 20))
    for text in ("so it is 7.", " two  spaces", "\u6570 <image> <|im_end|>"):
        assert cut_response(tokenizer, text, 99) == text
