import shutil

import pytest

from src.experiments.protocol import scenes_hash, scoring_code, without_words
from src.scenes.scene import SceneRecord
from tests.helpers.repository import ROOT


def test_words_of_a_source_do_not_change_what_it_does():
    plain = "def f(a):\n    return a + 1\n"
    told = '"""A file."""\n# a comment\ndef f(a):\n    """Add."""\n    return a + 1  # one\n'
    assert without_words(plain) == without_words(told) == without_words("def f(a): return (a+1)")
    assert without_words(plain) != without_words(plain.replace("1", "2"))
    assert without_words("class A:\n    '''Empty.'''\n") == without_words("class A:\n    '''Other.'''\n")


def test_the_code_of_a_score_is_that_of_the_stages_between_scenes_and_scores(tmp_path):
    for path in [*(ROOT / "src").rglob("*.py"), ROOT / "dvc.yaml"]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    before = scoring_code(tmp_path)
    assert before == scoring_code() and len(before) == 16
    for file, changes in {
        "src/splatt3r/network.py": True,
        "src/metrics/image.py": True,
        "src/evaluate.py": True,
        "src/page/charts.py": False,
        "src/procedural/scenes.py": False,  # its scenes are named by their content
        "src/report.py": False,
    }.items():
        path = tmp_path / file
        text = path.read_text()
        path.write_text(text + "\n# more words\n")
        assert scoring_code(tmp_path) == before
        path.write_text(text + "\nmore = 1\n")
        assert (scoring_code(tmp_path) != before) == changes, file
        path.write_text(text)


@pytest.mark.parametrize("change", [{"sha256": "1" * 64}, {"id": "other"}])
def test_scenes_are_named_by_split_and_content(change):
    about = {"file": "f", "sha256": "0" * 64, "n_frames": 6, "units": "metre", "depth_fraction": 1.0, "category": "x"}
    records = [SceneRecord(id=name, split=split, **about) for name, split in (("a", "train"), ("b", "test"))]
    changed = [records[0], SceneRecord(**vars(records[1]) | change)]
    assert scenes_hash(records, "train") == scenes_hash(changed, "train") != scenes_hash(records, "test")
    assert scenes_hash(records, "test") != scenes_hash(changed, "test")
