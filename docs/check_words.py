"""Refuse words that have a better one in the field's vocabulary: `python docs/check_words.py`.

Prints `file:line: 'word': say …` for each and exits with 1. The table below is the only place
that lists these words; ALLOWED is the only place that lists exceptions. Standard library alone.
"""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = (
    *("rilbench", "docs", "recipes", "examples", "tests", ".github"),
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "results/README.md"),
    *("Makefile", "Dockerfile", "pyproject.toml", "mkdocs.yml"),
)
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".html", ".js", ".css", ".sh", ".svg", ""}

SAY = {
    r"anew": "again",
    r"mend(s|ed|ing)?": "fix",
    r"verbs?": "command",
    r"stor(y|ies)": "provenance",
    r"lanes?": "worker",
    r"look-?alikes?": "synthetic stand-in",
    r"laborator(y|ies)": "lab, or nano sandbox",
    r"games?": "discriminator training",
    r"unjudged": "judge_error, or without a verdict",
    r"stands? beside": "is shown next to, or is next to",
    r"that (is|are|was|were) there": "existing",
    r"what came of": "result",
    r"makes? do with": "fits",
    r"a mistake of yours": "a usage error",
    r"own_samples": "num_samples",
    r"micro_rows": "micro_batch_size, or micro_batch_tokens",
    r"policy\.(rate|beta|updates)": "policy.lr, kl_coef, clip_eps, mu",
    r"discriminator\.(rate|updates|pretrain_rows)": "discriminator.lr, mu, pretrain_batch_size",
    r"schedule\.questions": "schedule.prompts_per_step",
    r"teachers\.use": "teachers.max_responses",
    r"judge\.false_(right|wrong)": "judge.false_positive_rate, false_negative_rate",
}
"""Each pattern is matched as whole words, in any case, also inside names_like_this and LikeThis."""

OLD_SETTINGS = "policy.*|discriminator.*|schedule.*|teachers.*|judge.*|own_samples|micro_rows"
ALLOWED = (
    ("docs/check_words.py", "*"),
    # The table that turns an old setting into an error with its new name, and its test.
    ("rilbench/config/load.py", OLD_SETTINGS),
    ("tests/config/*.py", OLD_SETTINGS),
)
"""Exceptions: a file pattern, and the words (patterns joined by `|`) that it may contain."""

PATTERN = re.compile(rf"(?<![a-z])(?:{'|'.join(SAY)})(?![a-z])", re.IGNORECASE)


def files():
    """Yield every text file that is checked."""
    for place in PLACES:
        path = ROOT / place
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix in SUFFIXES and "__pycache__" not in file.parts:
                yield file


def is_allowed(name: str, word: str) -> bool:
    """Return whether the file may contain the word."""
    return any(
        fnmatch(name, files) and any(fnmatch(word.lower(), w) for w in words.split("|"))
        for files, words in ALLOWED
    )


def words_in(text: str):
    """Yield (line number, word, advice) for each refused word of a text."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)  # CamelCase into words
    for match in PATTERN.finditer(text):
        advice = next(say for word, say in SAY.items() if re.fullmatch(word, match[0], re.I))
        yield text.count("\n", 0, match.start()) + 1, match[0], advice


def main() -> int:
    """Check all files, or those named on the command line; return the exit status."""
    chosen = [Path(name).resolve() for name in sys.argv[1:]]
    count = 0
    for file in files():
        if chosen and file.resolve() not in chosen:
            continue
        name = file.relative_to(ROOT).as_posix()
        for number, word, advice in words_in(file.read_text(encoding="utf-8")):
            if not is_allowed(name, word):
                print(f"{name}:{number}: {word!r}: say {advice}")
                count += 1
    if count:
        print(f"{count} words to replace (docs/check_words.py)", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    raise SystemExit(main())
