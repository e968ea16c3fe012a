"""What a generated answer is worth: a rule for each task, 0 to 1, the same as its original's.

| rule | right when | from |
| --- | --- | --- |
| `all` | share of references that stand in the answer, letter case aside | RULER (arXiv:2404.06654), `string_match_all` |
| `any` | one reference stands in it | RULER, `string_match_part` |
| `first-integer` | its first run of digits is the reference | InfiniteBench (arXiv:2402.13718), passkey |
| `last-integer` | its last run of digits has the reference's value | LongEval |
| `starts-with` | it begins with the reference, white space and case aside | greedy decoding's twin of forced scoring |
| `label` | of all labels its first sentence names the reference alone | BABILong (arXiv:2406.10149) |
| `rouge-l` | ROUGE-L's F measure of words, the best of the references | Lin 2004; Llama 2 Long (arXiv:2309.16039) |
| `ratio` | difflib's ratio after a tag that must come first; references are (tag, text) | MRCR (arXiv:2409.12640) |

An answer is taken as it was decoded: special tokens are left out by whoever decodes, never here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher

from ropewalk.data.tasks.task import Rule

Score = Callable[[str, Sequence[str]], float]
CONTROL = re.compile(r"[\x00-\x1f]")
DIGITS = re.compile(r"[0-9]+")
WORDS = re.compile(r"[a-z0-9]+")


def score(rule: Rule, answer: str, references: Sequence[str], labels: Sequence[str] = ()) -> float:
    """What `answer` is worth under a rule. `labels` are all answers that a question might have, for the rule `label`."""
    if rule == "label":
        return label(answer, references, labels)
    return RULES[rule](answer, references)


def fraction(answer: str, references: Sequence[str]) -> float:
    """`all`: the share of references that stand in the answer."""
    text = CONTROL.sub("\n", answer.strip()).strip().lower()
    return sum(reference.lower() in text for reference in references) / len(references)


def any_of(answer: str, references: Sequence[str]) -> float:
    """`any`: whether one of the references stands in the answer."""
    return float(fraction(answer, references) > 0)


def first_integer(answer: str, references: Sequence[str]) -> float:
    """`first-integer`: digits are compared as text, so that 012 is not 12."""
    found = DIGITS.search(answer)
    return float(found is not None and found.group() in references)


def last_integer(answer: str, references: Sequence[str]) -> float:
    """`last-integer`: digits are compared as numbers."""
    found = DIGITS.findall(answer)
    return float(bool(found) and int(found[-1]) in [int(reference) for reference in references])


def starts_with(answer: str, references: Sequence[str]) -> float:
    """`starts-with`."""
    return float(any(answer.strip().lower().startswith(reference.strip().lower()) for reference in references))


def label(answer: str, references: Sequence[str], labels: Sequence[str]) -> float:
    """`label`: the first sentence names the reference, and no other label. Labels within the reference do not count."""
    sentence, right = answer.lower().split(".")[0], references[0].lower()
    others = {one.lower() for one in labels} - {right}
    return float(right in sentence and not any(one in sentence for one in others if one not in right))


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """`rouge-l`: F measure of the longest common subsequence of words, no stemming, as the package rouge-score has it."""
    return max(_rouge_l(WORDS.findall(answer.lower()), WORDS.findall(reference.lower())) for reference in references)


def _rouge_l(answer: Sequence[str], reference: Sequence[str]) -> float:
    row = [0] * (len(reference) + 1)
    for word in answer:
        before = 0
        for index, other in enumerate(reference):
            before, row[index + 1] = row[index + 1], before + 1 if word == other else max(row[index + 1], row[index])
    # F of precision c / answer and recall c / reference.
    return 2 * row[-1] / (len(answer) + len(reference)) if row[-1] else 0.0


def ratio(answer: str, references: Sequence[str]) -> float:
    """`ratio`: 0 where the tag does not come first; white space around tag and text does not count."""
    tag, text = references
    said = answer.strip()
    # difflib is not symmetric: the reference comes first, as in MRCR's second version.
    return SequenceMatcher(None, text.strip(), said.removeprefix(tag).strip()).ratio() if said.startswith(tag) else 0.0


RULES: Mapping[str, Score] = {
    "all": fraction, "any": any_of, "first-integer": first_integer, "last-integer": last_integer,
    "starts-with": starts_with, "rouge-l": rouge_l, "ratio": ratio,
}  # fmt: skip
