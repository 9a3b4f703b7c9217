"""The search of the site finds numbers: who gets a 403 types 403.

Sphinx leaves numbers out of its index, and out of what is typed. Here lives what puts
them into the one; ``_static/numbers.js`` puts them into the other. Nothing else of the
search is changed.
"""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish


class EnglishWithNumbers(SearchEnglish):
    """English words, and numbers of three digits or more: such as a status."""

    def word_filter(self, word: str) -> bool:
        """Whether a word is to be found."""
        return super().word_filter(word) or (word.isdigit() and len(word) > 2)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.add_search_language(EnglishWithNumbers)
    app.add_js_file("numbers.js")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
