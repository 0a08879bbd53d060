"""Whatever text is given, the markup has the elements that the code wrote and no others."""

import hashlib
import json
import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from noiselaw.report.document import package_file
from noiselaw.report.markup import element, json_text, raw
from noiselaw.report.page import LIBRARY

HOSTILE = st.text(alphabet=st.sampled_from("<>&\"'/!-=scriptx \u2028\u2029\\`$"), max_size=40)


class Recorder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.seen: list[tuple[str, list]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, attrs))

    def handle_data(self, data):
        self.text += data


@given(HOSTILE, HOSTILE)
def test_text_and_attributes_stay_what_they_are(text, attribute):
    recorder = Recorder()
    recorder.feed(element("p", text, [element("em", text)], class_=attribute))
    recorder.close()
    assert recorder.seen == [("p", [("class", attribute)]), ("em", [])]
    assert recorder.text == text + text


@given(st.recursive(HOSTILE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3)))
def test_json_survives_and_cannot_leave_its_script(value):
    text = json_text(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_only_raw_is_taken_as_markup():
    assert element("p", "<b>") == "<p>&lt;b&gt;</p>"
    assert element("p", raw("<b></b>")) == "<p><b></b></p>"
    assert element("meta", name="a", hidden=None, open=True) == '<meta name="a" open>'


def test_the_drawing_library_is_the_one_that_is_named_and_cannot_leave_its_script():
    sums = re.findall(r"`([0-9a-f]{64})`", package_file("vendor/SOURCE.md"))
    library = package_file(LIBRARY)
    assert hashlib.sha256(library.encode()).hexdigest() in sums
    assert "MIT license" in library
    assert not re.search(r"</script|<!--|\r", library)
