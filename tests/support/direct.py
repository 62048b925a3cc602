"""What a model says of a text after a question, by transformers alone."""

import io

import torch
from PIL import Image


def log_probs(model, processor, question, text, blank=False):
    """Log-probabilities of the tokens of a text after the prompt, and the prompt's tokens."""
    images = [Image.open(io.BytesIO(image)) for image in question.images]
    images = [Image.new("RGB", image.size) if blank else image for image in images]
    prompt = processor.apply_chat_template(
        question.chat, tokenize=False, add_generation_prompt=True
    )
    batch = processor(text=[prompt + text], images=images or None, return_tensors="pt")
    count = len(processor.tokenizer.encode(text, add_special_tokens=False))
    with torch.no_grad():
        found = model(**batch).logits[0, :-1].log_softmax(-1)
    ids = batch["input_ids"][0]
    return found.gather(-1, ids[1:, None])[-count:, 0].tolist(), ids[:-count].tolist()
