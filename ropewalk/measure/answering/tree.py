"""Every branch of a stage in one forward: a tree on a cache.

The questions follow the cached context, and each candidate, but for its last token, follows its question:

    context | question 0 | candidate 0 | candidate 1 | ... | question 1 | candidate 0 | ...

A 4D mask lets each token see the whole context, its own question, and what its own candidate has said so far; positions
count on from the context's end in every branch. So each branch is computed as if it stood alone (tested in float32 against
branches one by one and against stand-alone prompts). Greedy decoding goes on from the same tree, one token of every question
a forward. The idea is that of tree attention for speculative decoding (SpecInfer, arXiv:2305.09781, section 4).

What was given up: models whose layers slide, chunk or recur, and those that count positions in the cache instead of taking
them, branch one by one. `fits` proves the rest on a few tokens. The mask is additive in the model's dtype, which
transformers hands through as it is to `sdpa` and `eager` (`eager` would add a boolean one as 0 and 1); other attention
functions are not asked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ropewalk.data.tasks.encoding import Ids
from ropewalk.data.tasks.task import Question
from ropewalk.measure.answering.answer import Reading, branches
from ropewalk.measure.answering.prefilled import Prefilled, tensor
from ropewalk.measure.forward import Forward

ATTENTIONS = ("sdpa", "eager")
"""Attention functions that take a 4D additive mask as it is."""
MAX_TOKENS = 1024
"""Tokens of one forward, at the most, unless one answer alone is longer."""
MASK_BYTES = 256 * 1024 * 1024
"""Of one forward's mask, at the most."""
CLOSE = 0.1
"""How near logits must be in the proof: root mean square over their deviation. SmolLM2 in bfloat16 is at 0.03 to 0.05, and
at 0.35 to 0.66 where tokens see what they must not or stand at wrong positions."""
ASKED, GENERATED = -1, -2
"""What stands for a candidate in the tokens of a question, and in those decoded after it."""
_PROVED: WeakKeyDictionary[Forward, bool] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A question with some of its candidates: what shares the reading of one question."""

    question: int
    """Index among the questions asked."""
    candidates: list[int] = field(default_factory=list)
    """Indices among the question's answers."""


def pack(questions: Sequence[Question], limit: int) -> Iterator[list[Branch]]:
    """All branches, in groups of at most `limit` tokens where single ones allow it."""
    group: list[Branch] = []
    size = 0
    for index, question in enumerate(questions):
        for which, answer in enumerate(branches(question)):
            more, is_new = int(answer.size) - 1, not group or group[-1].question != index
            if group and size + more + is_new * question.question.size > limit:
                yield group
                group, size, is_new = [], 0, True
            if is_new:
                group.append(Branch(question=index))
                size += int(question.question.size)
            group[-1].candidates.append(which)
            size += more
    if group:
        yield group


class Tree:
    """The tokens of some branches: ids, positions after the context, and who sees whom."""

    def __init__(self, questions: Sequence[Question], group: Sequence[Branch]) -> None:
        ids: list[Ids] = []
        self.group = group
        self.branch = np.zeros(0, dtype=np.int64)
        """[N]: of which branch a token is."""
        self.candidate = np.zeros(0, dtype=np.int64)
        """[N]: of which candidate, or ASKED or GENERATED."""
        self.offsets = np.zeros(0, dtype=np.int64)
        """[N]: the position, counted from the context's end."""
        self.last: list[int] = []
        """For each branch the index of its question's last token."""
        self.rows: list[NDArray[np.int64]] = []
        """For each answer, in order, the tokens whose hidden states predict it."""
        self.answers: list[Ids] = []
        for index, part in enumerate(group):
            question = questions[part.question]
            ids.append(question.question)
            self._add(index, ASKED, np.arange(question.question.size))
            self.last.append(self.branch.size - 1)
            for which in part.candidates:
                answer = branches(question)[which]
                ids.append(answer[:-1])
                low = self.branch.size
                self._add(index, which, question.question.size + np.arange(answer.size - 1))
                self.rows.append(np.concatenate([self.last[-1:], np.arange(low, self.branch.size)]).astype(np.int64))
                self.answers.append(answer)
        self.ids = np.concatenate(ids)

    def _add(self, branch: int, candidate: int, offsets: NDArray[np.int64]) -> None:
        self.branch = np.append(self.branch, np.full(offsets.size, branch))
        self.candidate = np.append(self.candidate, np.full(offsets.size, candidate))
        self.offsets = np.append(self.offsets, offsets)

    def decoded(self, branch: int, step: int) -> None:
        """Takes in that a token was decoded in a branch, the first at step 0."""
        self._add(branch, GENERATED, self.offsets[self.last[branch]] + 1 + np.array([step]))

    def mask(self, num_context: int, low: int, like: Tensor) -> Tensor:
        """Additive mask [N - low, num_context + N] of the tokens from `low` on, in the dtype and on the device of `like`."""
        row, column = np.arange(low, self.branch.size)[:, None], np.arange(self.branch.size)[None]
        candidate = self.candidate
        sees = (self.branch[row] == self.branch[column]) & (column <= row)
        sees &= (candidate[column] == ASKED) | (candidate[column] == candidate[row])
        mask = torch.zeros(row.size, num_context + column.size, dtype=like.dtype, device=like.device)
        mask[:, num_context:].masked_fill_(torch.from_numpy(~sees).to(like.device), torch.finfo(like.dtype).min)
        return mask


def read_tree(
    cache: Prefilled,
    questions: Sequence[Question],
    *,
    budgets: Sequence[int] | None = None,
    ends: frozenset[int] = frozenset(),
) -> list[Reading]:
    """All questions on a cache, which is left as it was.

    With `budgets`, that many tokens are decoded for each question too, up to one of `ends`.
    """
    logprobs: list[list[float]] = [[] for _ in questions]
    choices: dict[int, Ids] = {}
    generated: dict[int, Ids] = {}
    like = cache.like
    limit = min(MAX_TOKENS, max(1, MASK_BYTES // (like.element_size() * (cache.num_read + MAX_TOKENS))))
    for group in pack(questions, limit):
        tree, num_context = Tree(questions, group), cache.num_read
        with cache.branch():
            hidden = cache.read(tree.ids, positions=num_context + tree.offsets, mask=tree.mask(num_context, 0, like))
            scores, first = score(cache.forward, hidden, tree.rows, tree.answers)
            answers = ((part, which) for part in group for which in part.candidates)
            for (part, which), value, row in zip(answers, scores, tree.rows, strict=True):
                logprobs[part.question].append(value)
                if which == 0:
                    choices[part.question] = first[row]
            if budgets is not None:
                generated |= _decode(cache, tree, num_context, first, budgets, ends)
    return [
        Reading(logprobs=tuple(values), choices=choices[index], generated=generated.get(index))
        for index, values in enumerate(logprobs)
    ]


def _decode(
    cache: Prefilled, tree: Tree, num_context: int, first: NDArray[np.int64], budgets: Sequence[int], ends: frozenset[int]
) -> dict[int, Ids]:
    """Greedy tokens for each question whose branch begins here, all of them together, one token each a forward."""
    like = cache.like
    said = {index: [int(first[tree.last[index]])] for index, part in enumerate(tree.group) if 0 in part.candidates}
    while True:
        going = [
            index for index, tokens in said.items()
            if tokens[-1] not in ends and len(tokens) < budgets[tree.group[index].question]
        ]  # fmt: skip
        if not going:
            return {tree.group[index].question: upto_end(tokens, ends) for index, tokens in said.items()}
        low = tree.branch.size
        for index in going:
            tree.decoded(index, len(said[index]) - 1)
        ids = np.array([said[index][-1] for index in going])
        hidden = cache.read(ids, positions=num_context + tree.offsets[low:], mask=tree.mask(num_context, low, like))
        for index, token in zip(going, first_choices(cache.forward, hidden), strict=True):
            said[index].append(int(token))


def upto_end(tokens: Sequence[int], ends: frozenset[int]) -> Ids:
    """Tokens without the end token."""
    return np.array([token for token in tokens if token not in ends], dtype=np.int64)


@torch.inference_mode()
def first_choices(forward: Forward, hidden: Tensor) -> NDArray[np.int64]:
    """The most likely next token of each row of hidden states [N, D]."""
    return forward.logits(hidden).argmax(1).cpu().numpy()


@torch.inference_mode()
def score(
    forward: Forward, hidden: Tensor, rows: Sequence[NDArray[np.int64]], answers: Sequence[Ids]
) -> tuple[list[float], NDArray[np.int64]]:
    """Log-probability of each answer, nats, and the first choice of each row [N] of `hidden` [N, D] that predicts something.

    `rows` are the indices of the hidden states that predict each answer's tokens. The head runs over each of them once, in
    chunks, however many answers share it.
    """
    flat, needs = tensor(np.concatenate(rows)), tensor(np.unique(np.concatenate(rows)))
    targets = tensor(np.concatenate(answers))
    place = torch.searchsorted(needs, flat)
    picked, first = torch.empty(flat.shape[0]), torch.full((hidden.shape[0],), -1, dtype=torch.long)
    for part in forward.chunks(needs.shape[0]):
        logp = forward.log_probabilities(hidden[needs[part].to(hidden.device)])
        first[needs[part]] = logp.argmax(1).cpu()
        inside = (place >= part.start) & (place < part.stop)
        picked[inside] = logp[(place[inside] - part.start).to(logp.device), targets[inside].to(logp.device)].cpu()
    values = [float(part.sum()) for part in torch.split(picked, [int(answer.size) for answer in answers])]
    return values, first.numpy()


def fits(cache: Prefilled) -> bool:
    """Whether the tree is right for this model: plain cache, known attention, and proved on a few tokens."""
    if not cache.is_plain or cache.attention not in ATTENTIONS:
        return False
    # Llama 4's temperature counts positions in the cache, and shows only beyond thousands of tokens.
    if getattr(cache.forward.model.config.get_text_config(), "attn_temperature_tuning", False):
        return False
    if cache.forward not in _PROVED:
        _PROVED[cache.forward] = _proof(cache.forward)
    return _PROVED[cache.forward]


def _proof(forward: Forward) -> bool:
    """Two branches after a short context, in one forward and one by one, to the precision of the dtype."""
    # Not the first ids: special tokens that no text held make a model erratic beyond its dtype.
    ids = (forward.vocabulary // 3 + 7 * np.arange(24)) % forward.vocabulary
    questions = [
        Question(key="", references=(), question=ids[8:12], answer=ids[12:15]),
        Question(key="", references=(), question=ids[15:20], answer=ids[20:24]),
    ]
    cache = Prefilled(forward)
    cache.read(ids[:8])
    tree = Tree(questions, next(pack(questions, MAX_TOKENS)))
    with cache.branch():
        together = cache.read(tree.ids, positions=8 + tree.offsets, mask=tree.mask(8, 0, cache.like))
    alone = []
    for question in questions:
        with cache.branch():
            alone.append(cache.read(np.concatenate([question.question, question.answer[:-1]])))
    with torch.inference_mode():
        mine, expected = forward.logits(together), forward.logits(torch.cat(alone))
    return bool((mine - expected).square().mean().sqrt() <= CLOSE * expected.std())
