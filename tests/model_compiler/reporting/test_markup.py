"""Nothing that is put into the page becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from model_compiler.reporting.markup import Column, Html, bar, element, escaped, facts, items, name, printable, table

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;]]>--><style>*{}</style>\x00\u202e$\\frac"


class Read(HTMLParser):
    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text())
def test_text_stays_text(text: str) -> None:
    read = Read(element("p", text))
    assert read.tags == ["p"]
    assert read.text.replace("\r", "\n") == printable(text).replace("\r", "\n")


@given(st.text(min_size=1))
def test_an_attribute_stays_an_attribute(text: str) -> None:
    read = Read(element("p", "x", title=text))
    assert read.tags == ["p"]
    assert read.attributes == [("title", printable(text))]


def test_every_element_takes_hostile_text() -> None:
    made = (
        table(
            [Column(HOSTILE, "name"), Column("n", "number")], [(HOSTILE, HOSTILE)], marked=[HOSTILE], caption=HOSTILE
        ),
        facts([(HOSTILE, HOSTILE)]),
        items([HOSTILE], HOSTILE),
        name(HOSTILE),
        bar(float("1e9"), -3.0),
    )
    for markup in made:
        assert not {"script", "img", "style"} & set(Read(markup).tags)


def test_markup_is_not_escaped_twice() -> None:
    assert element("p", element("b", "a & b")) == "<p><b>a &amp; b</b></p>"
    assert escaped(Html("<i></i>")) == "<i></i>"


def test_a_fact_without_a_value_is_left_out() -> None:
    assert Read(facts([("a", ""), ("b", "c")])).text == "bc"


def test_a_table_of_many_columns_becomes_cards_on_a_narrow_page() -> None:
    def classes(count: int) -> str:
        return table([Column(str(at)) for at in range(count)], [])

    assert 'class="wide"' in classes(5)
    assert 'class="wide"' not in classes(4)
