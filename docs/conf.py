"""How the site is built: `make docs` (Sphinx with MyST and furo). Nothing on a page is loaded from elsewhere."""

import sys
from pathlib import Path

from noiselaw import __version__

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "noiselaw"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
extensions += ["plainrst", "mathml", "reproduction"]  # docs/extensions
exclude_patterns = ["extensions"]
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
default_role = "code"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_mock_imports = ["lm_eval"]
python_use_unqualified_type_names = True
toc_object_entries = False

html_theme = "furo"
html_title = "noiselaw"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "default"
pygments_dark_style = "monokai"
