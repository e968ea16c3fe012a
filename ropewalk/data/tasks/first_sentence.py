"""What is the first sentence of this text? The farthest thing there is, asked in the user's own text.

Nothing is planted: the text begins at a sentence that the seed draws, and the question asks for that sentence. So what is
asked is as far away as the length allows, and is written like all the rest. Llama 2 Long found that likelihood hides the
difference between interpolated and rescaled positions and that this does not.

Structure and rule: Llama 2 Long (arXiv:2309.16039, section 4.1), ROUGE-L of what is generated; its prompt was not
published and the wording is our own. An answer may be as long as the right one, so that a model is not punished for
reading on. The sentence is given as it stands, line breaks included, and its log-probability is read beside it.
"""

import re

import numpy as np

from ropewalk.core.errors import TextError
from ropewalk.data.tasks.encoding import Encoder, Ids
from ropewalk.data.tasks.planting import sentence_ends
from ropewalk.data.tasks.task import Ask, Haystack, Question, Split, Task, check_filler, too_short
from ropewalk.data.tasks.templates import Wording, wording

OWN: dict[Split, Wording] = {
    "measure": Wording(
        opening="The text below begins with a sentence that you are asked for at its end.\n",
        question="\n\nQuestion: With which sentence did the text begin? Repeat it word for word.\n",
        start="Answer: The text began with:",
    ),
    "train": Wording(
        opening="Here comes a passage. Mind how it opens.\n",
        question="\n\nHow did the passage open?\n",
        start="It opened with this:",
    ),
}
SENTENCE = re.compile(r"\s*([A-Z][^.!?]*[.!?])(?=\s+[\"'(A-Z])")
SHORTENED = (" Mr.", " Mrs.", " Dr.", " St.", " Capt.", " No.", " vs.", " e.g.", " i.e.")
"""What a full stop stands after and no sentence ends with."""
NUM_WORDS = (8, 40)
"""Shortest and longest sentence that is asked for."""
NUM_LOOKED = 160
"""Tokens looked at for the end of a sentence."""


class FirstSentence(Task):
    """The first sentence of a long text."""

    id = "first-sentence"
    family = "retrieval"
    summary = "the first sentence of your text, by ROUGE-L"
    source = "Llama 2 Long (arXiv:2309.16039), first-sentence retrieval; own wording"
    plants = False
    grows = True
    needs = ("text",)
    scoring = "generate"

    def build(self, ask: Ask) -> Haystack:
        """The text from a drawn sentence on."""
        encoder, words = ask.encoder, wording(ask, self.id, OWN)
        opening = np.concatenate([encoder.head, encoder.ids(words.opening)])
        asked = encoder.question(words.question, words.start)
        check_filler(ask, ask.length - int(opening.size + asked.size))
        begin, size, sentence = self._sentence(ask, int(opening.size + asked.size))
        answer = encoder.ids(f" {sentence}")
        tail = int(asked.size + answer.size)
        smallest = int(opening.size) + size + tail + 1
        if ask.lengths[0] < smallest:
            raise too_short(ask.lengths[0], smallest, "its first sentence and the question")
        cuts = tuple(length - tail for length in ask.lengths)
        text = ask.filler[begin : begin + cuts[-1] - int(opening.size)]
        questions = [
            Question(
                key="first sentence",
                references=(sentence,),
                question=asked,
                answer=answer,
                position=int(opening.size),
                depth=int(opening.size) / cut,
                stage=stage,
                rule="rouge-l",
            )
            for stage, cut in enumerate(cuts)
        ]
        return Haystack(
            context=np.concatenate([opening, text]), questions=tuple(questions), lengths=ask.lengths, seed=ask.seed,
            head=encoder.head, cuts=cuts, num_needles=(1,) * len(cuts), wording=words.name,
        )  # fmt: skip

    def _sentence(self, ask: Ask, around: int) -> tuple[int, int, str]:
        """Where the text begins, how many tokens its first sentence has, and the sentence.

        Drawn from the whole text in an order of the seed, so that lengths are compared on the same sentence wherever
        enough text follows it.
        """
        ends = np.flatnonzero(np.isin(ask.filler, list(sentence_ends(ask.encoder.tokenizer, ask.filler)))) + 1
        needed, blank = ask.length - around, _blank(ask.encoder, ask.filler)
        for end in ask.rng(self.id).permutation(ends):
            begin = end
            while begin < ask.filler.size and int(ask.filler[begin]) in blank:
                begin += 1
            if begin + needed <= ask.filler.size and (found := _read(ask.encoder, ask.filler[begin : begin + NUM_LOOKED])):
                return int(begin), *found
        raise TextError(
            f"no sentence of {NUM_WORDS[0]} to {NUM_WORDS[1]} words in the text has {needed} tokens after it; "
            "give a longer text in prose or smaller --lengths"
        )


def _blank(encoder: Encoder, filler: Ids) -> set[int]:
    """The token ids in `filler` that are white space and nothing else."""
    kinds = np.unique(filler)
    texts = encoder.tokenizer.batch_decode([[int(kind)] for kind in kinds])
    return {int(kind) for kind, text in zip(kinds, texts, strict=True) if text.isspace()}


def _read(encoder: Encoder, ids: Ids) -> tuple[int, str] | None:
    """How many tokens the first sentence has, and the sentence; None where there is none of the right length."""
    text = encoder.tokenizer.decode(ids.tolist())
    found = SENTENCE.match(text)
    if found is None or "\n\n" in found[1] or found[1].endswith(SHORTENED):
        return None
    if not NUM_WORDS[0] <= len(found[1].split()) <= NUM_WORDS[1]:
        return None
    size = next(size for size in range(1, ids.size + 1) if len(encoder.tokenizer.decode(ids[:size].tolist())) >= found.end())
    return size, found[1]


TASKS = (FirstSentence(),)
