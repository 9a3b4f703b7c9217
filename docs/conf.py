"""What Sphinx is told of these pages: ``make docs`` builds a site of them.

Here live options, and nothing else. How a page that is written for GitHub becomes a
page of the site stands in ``as_on_github.py``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from flask_sse_lite import __version__

project = "flask_sse_lite"
author = "The flask_sse_lite developers"
copyright = f"{author}, MIT"
release = __version__

extensions = ["sphinx.ext.autodoc", "as_on_github", "searching"]

# Blocks without a language are commands and what they print.
highlight_language = "none"

# The reference follows the package's own order: what an application does first comes
# first.
autodoc_member_order = "bysource"
# A type stands beside the sentence about its parameter. Signatures stay short enough
# for a phone.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
# Defaults are shown as they are written.
autodoc_preserve_defaults = True
maximum_signature_line_length = 60

html_theme = "furo"
html_title = f"flask_sse_lite {release}"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Some pages include a file from elsewhere, which the theme's buttons do not know.
html_theme_options: dict[str, object] = {"top_of_page_buttons": []}
