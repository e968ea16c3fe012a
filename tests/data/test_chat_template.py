"""Which chat template is used, and the day that it writes."""

import datetime
import itertools
from pathlib import Path

import pytest
from chat import CHATML, FORGETFUL, MARKED, TODAY, chat_tokenizer, on_day

from ropewalk.core.errors import InputError
from ropewalk.data.chat_template import ChatTemplate, dated
from ropewalk.data.reading.records import Message, UnreadableError
from ropewalk.data.tokens import Encoder

TURNS = (Message(role="user", content="q"), Message(role="assistant", content="a"))


def test_of_several_templates_by_name_the_default_is_used(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = {"tool_use": FORGETFUL, "default": CHATML}
    tokenizer.save_pretrained(tmp_path)
    for several in (tokenizer, type(tokenizer).from_pretrained(tmp_path)):
        assert isinstance(several.chat_template, dict)
        made, one = (Encoder(tokenizer=each).encode(TURNS) for each in (several, chat_tokenizer()))
        assert made.ids.tolist() == one.ids.tolist()
        assert made.learned.tolist() == one.learned.tolist()
    tokenizer.chat_template = {"tool_use": CHATML, "default": MARKED}
    assert Encoder(tokenizer=tokenizer).template.marked


def test_templates_of_which_none_is_the_default_are_named() -> None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = {"rag": CHATML, "tool_use": CHATML}
    with pytest.raises(InputError, match=r"chat templates \(rag, tool_use\) is called default; give one with"):
        Encoder(tokenizer=tokenizer).check(TURNS)
    # Texts need none, and one that is given is taken.
    assert Encoder(tokenizer=tokenizer).encode("a").ids.size
    assert len(Encoder(tokenizer=tokenizer).fingerprint()) == 64
    assert Encoder(tokenizer=tokenizer, chat_template=CHATML).encode(TURNS).learned.any()


ASKED = "{% if strftime_now is defined %}{{ strftime_now('%j') }}{% endif %}"
IN_MACRO = '{% macro day() %}{% set day = strftime_now( "%Y-%m-%d" ) %}{{ day }}{% endmacro %}'


@pytest.mark.parametrize("before", ["", "\n", "  \n", "  {% if true %}\nx{% endif %}", "{#- said -#}\n", "{{- 'x' }}\n "])
@pytest.mark.parametrize("body", ["{{ strftime_now('%d %b %Y') }}", ASKED])
def test_a_dated_template_writes_what_it_wrote_on_that_day(monkeypatch: pytest.MonkeyPatch, before: str, body: str) -> None:
    template = before + IN_MACRO + body + "{{ day() }}\n"
    tokenizer = chat_tokenizer(template)
    with on_day(monkeypatch, "2026-01-31"):
        then = ChatTemplate(tokenizer=tokenizer).written(TURNS)
    with on_day(monkeypatch, "2026-12-01"):
        assert ChatTemplate(tokenizer=tokenizer, date="2026-01-31").written(TURNS) == then
        assert ChatTemplate(tokenizer=tokenizer).written(TURNS) != then


def test_a_template_without_a_date_stays_as_it_is() -> None:
    assert dated(CHATML, "2026-01-31") == CHATML
    assert Encoder(tokenizer=chat_tokenizer()).on("2026-01-31").date is None
    assert Encoder(tokenizer=chat_tokenizer(None)).on(None).date is None
    assert Encoder(tokenizer=chat_tokenizer(TODAY)).on(None).date == datetime.date.today().isoformat()


def test_a_date_in_a_format_that_is_put_together_is_refused() -> None:
    template = ChatTemplate(tokenizer=chat_tokenizer("{{ strftime_now('%d' + ' %B') }}"), date="2026-01-31")
    with pytest.raises(UnreadableError, match="refused by the chat template") as caught:
        template.written(TURNS)
    assert caught.value.detail == "asks for the date in a format that it does not spell"


def test_marks_stand_where_they_stood_behind_a_date() -> None:
    """And a template that is dated is still found to have them."""
    template = TODAY.split("{% for", maxsplit=1)[0] + MARKED
    for date, opened in itertools.product((None, "2026-01-31"), (False, True)):
        made = Encoder(tokenizer=chat_tokenizer(template), date=date)
        assert made.template.marked
        whole, ((low, high),) = made.template.marks(TURNS)
        assert whole[low:high] == "a<|im_end|>"
        assert made.template.written(TURNS, opened=opened) == whole
