"""Sphinx: python -m sphinx -W --keep-going -b html docs scratch/docs"""

from pathlib import Path

import yaml

project = "Backsplat"
author = "The Backsplat authors"
copyright = author
release = yaml.safe_load((Path(__file__).parents[1] / "CITATION.cff").read_text())["version"]

extensions = ["myst_nb"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # a page says what a command does; tests run it

html_theme = "furo"
html_title = f"Backsplat {release}"
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
