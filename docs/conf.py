"""The guide, built by Sphinx from Markdown: `make docs`."""

import vivace

project = "Vivace"
copyright = "the Vivace authors"
version = release = vivace.__version__
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Vivace {version}"
html_copy_source = False
html_show_sphinx = False
# Anchors of headings, so that a link to a section that is gone is found when the guide is built.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
nitpicky = True
