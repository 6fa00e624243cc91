"""Sphinx: python -m sphinx -W --keep-going -b html docs scratch/docs"""

import tomllib
from pathlib import Path

project = "Backsplat"
author = "The Backsplat authors"
copyright = author
release = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_nb"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # a page says what a command does; tests run it

html_theme = "furo"
html_title = f"Backsplat {release}"
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
