"""Sentences by our rule, in characters and in tokens."""

import numpy as np
from tiny import write_tiny_checkpoint

from ropewalk.data.sentences import passages, sentences, spans, token_sentences

TEXT = 'He left. "Why?" she asked him.\nNobody knew 3.5 reasons! 2 did.\n\nthe next begins small. 彼は去った。彼女は残った。'


def test_sentences_end_where_another_begins():
    assert sentences(TEXT) == [
        "He left.", '"Why?" she asked him.', "Nobody knew 3.5 reasons!", "2 did.", "the next begins small.", "彼は去った。",
        "彼女は残った。",
    ]  # fmt: skip


def test_spans_cover_the_text():
    cut = spans(TEXT)
    assert "".join(TEXT[low:high] for low, high in cut) == TEXT


def test_passages_are_long_and_end_with_a_sentence():
    words = "One two three four five six seven eight nine ten. "
    paragraphs = [words * 25, words * 5, "Word " * 120 + "end. Then one more."]
    found = passages("\n\n".join(paragraphs))
    assert [len(p) for p in found] == [11, 11, 2]
    assert all(sentence.endswith(".") for passage in found for sentence in passage)


def test_sentences_in_tokens_begin_with_the_space_before_them(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(write_tiny_checkpoint(tmp_path / "tiny"))
    text = "He left. She stayed there! And so."
    ids = np.array(tokenizer(text)["input_ids"])
    cut = token_sentences(tokenizer, ids)
    assert [tokenizer.decode(ids[a:b]) for a, b in cut] == ["He left.", " She stayed there!", " And so."]
    assert cut[-1][1] == ids.size
