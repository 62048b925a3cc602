"""Read the prompt with which VLMEvalKit 0.0.20 has a judge extract MathVista's answers.

After fixed examples come the question (with its hint and choices) and the response. The question
is the benchmark's own, so that the first mark after it is where the response begins.
"""

from __future__ import annotations

_TASK = "Then extract the answer from the model response and type it at the end of the prompt."
_EXAMPLES_END = "(B) 8/11.\n\nExtracted answer: B\n\n"
_RESPONSE = "\nModel respone: "  # The kit's spelling; its examples have the right one.
_END = "Extracted answer:"


def read_mathvista_prompt(text: str) -> tuple[str, str] | None:
    """Return (question, response) of the kit's prompt, or None for any other prompt."""
    head, end, rest = text.partition(_EXAMPLES_END)
    question, mark, response = rest.rstrip().partition(_RESPONSE)
    if not end or _TASK not in head or not mark or not response.endswith(_END):
        return None
    return question, response.removesuffix(_END)
