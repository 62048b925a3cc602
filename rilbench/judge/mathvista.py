"""Read the prompt by which VLMEvalKit 0.0.20 and lmms-eval 0.7.3 extract MathVista's answers.

After fixed examples come the question (with its hint and choices) and the response. The question
is the benchmark's own, so the first mark after it is where the response begins. In lmms-eval the
mark is an empty line, which no question of the synthetic stand-in has.
"""

from __future__ import annotations

_TASK = "Then extract the answer from the model response and type it at the end of the prompt."
_EXAMPLES_END = "(B) 8/11.\n\nExtracted answer: B\n\n"
_RESPONSE = "\nModel respone: "  # the kit's spelling; its examples have the right one
_RESPONSE_LMMS = "\n\n"
_END = "Extracted answer:"


def read_mathvista_prompt(text: str) -> tuple[str, str] | None:
    """Return (question, response) of a kit's prompt, or None for any other prompt."""
    head, end, rest = text.partition(_EXAMPLES_END)
    question, mark, response = rest.rstrip().partition(_RESPONSE)
    if not mark:
        question, mark, response = rest.rstrip().partition(_RESPONSE_LMMS)
    if not end or _TASK not in head or not mark or not response.endswith(_END):
        return None
    return question, response.removesuffix(_END)
