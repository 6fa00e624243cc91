"""Commands (`python -m src.<name>`) and the rooms that they share."""

import sys

MOVED = {
    "src.catalogue": "src.backbones",
    "src.lint": "src.check_scenes",
    "src.render_targets": "src.render",
    "src.statistics": "src.results.simulate",
}
if "-m" in sys.orig_argv and (called := sys.orig_argv[sys.orig_argv.index("-m") + 1 :][:1]) and called[0] in MOVED:
    sys.exit(f"error: python -m {called[0]} is now python -m {MOVED[called[0]]}.")
