import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from src.experiments.archive import keep_result
from src.experiments.comparisons import Verdicts, control_of, gather, judge, reference_of, scene_scores
from src.experiments.result import (
    EXPERIMENT_SCHEMA,
    experiment_commits,
    merge_seeds,
    protocol_differences,
    read_folder,
    read_revision,
    reader_of,
)
from src.reproducible.files import write_json
from src.results.statistics import POOLED, PRIOR
from tests.helpers.findings import made_up_result
from tests.helpers.publishing import publish

PRIORS = {"psnr_masked": {"own": 0.05, "shared": 0.08}}


def verdicts(results: list, priors: dict | None = None, metrics: tuple[str, ...] = ("psnr_masked",)) -> Verdicts:
    """On the comparable ones among them, against the first baseline and the first control."""
    comparable = [each for each in results if not protocol_differences(results[0], each)]
    return judge(comparable, reference_of(results), control_of(results), priors or {}, 0.95, metrics)


def test_this_run_its_commit_and_the_experiments_of_that_commit_are_found(repository):
    results = gather(repository, repository / "reports")
    assert [each.name for each in results] == ["this run", "main", "better", "long"]
    assert [each.label for each in results] == ["vit", "MASt3R only (no backbone)", "clip", "clip"]
    assert results[1].is_mast3r_only and not results[0].is_mast3r_only
    assert results[1].benchmark.params == "of another configuration"
    assert results[2].curves == {"train_loss": "step,loss\n0,0.5\n"}
    assert len(results[0].scores()) == 24 and results[0].scores("lpips") == {}


def test_the_work_tree_equal_to_an_experiment_is_one_row(repository):
    publish(repository, "clip", 0.5, noise=1)
    assert [each.name for each in gather(repository, repository / "reports")] == ["this run (better)", "main", "long"]


def test_a_kept_result_is_one_with_the_experiment_that_it_was_kept_from(repository):
    commit = dict(experiment_commits(repository))["better"]
    keep_result(repository / "reports/experiments", "clips", reader_of(repository, commit))
    found = {each.name: each for each in gather(repository, repository / "reports")}
    assert list(found) == ["this run", "clips", "main", "long"] and found["clips"].revision == commit
    kept = gather(repository, repository / "reports", kept_alone=True)
    assert [each.name for each in kept] == ["this run", "clips"] and kept[1].revision is None
    assert kept[1].curves == found["clips"].curves and kept[1].rows == read_revision(repository, "better", "x").rows


def test_revisions_are_found_by_any_name(repository):
    assert read_revision(repository, "better", "x").label == "clip"
    assert read_revision(repository, "main", "x").is_mast3r_only
    assert read_revision(repository, "main~1", "x") is None and read_revision(repository, "nowhere", "x") is None
    assert [name for name, _ in experiment_commits(repository, "main~1")] == ["old"]


def test_results_of_another_version_are_left_out_with_a_sentence(repository, capsys, monkeypatch):
    monkeypatch.setattr("src.experiments.result.EXPERIMENT_SCHEMA", EXPERIMENT_SCHEMA + 1)
    publish(repository, "vit", 0.0)
    about = json.loads((repository / "reports/experiment.json").read_text())
    write_json(repository / "reports/experiment.json", about | {"schema": EXPERIMENT_SCHEMA + 1})
    assert [each.name for each in gather(repository, repository / "reports")] == ["this run"]
    assert (
        capsys.readouterr().err.count(
            f"another version of this code (schema {EXPERIMENT_SCHEMA}, this is {EXPERIMENT_SCHEMA + 1})"
        )
        == 3
    )


def test_without_git_or_results_there_is_only_this_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="run dvc repro"):
        gather(tmp_path, tmp_path / "reports")
    publish(tmp_path, "vit", 0.0)
    assert [each.name for each in gather(tmp_path, tmp_path / "reports")] == ["this run"]
    assert experiment_commits(tmp_path) == []


def test_what_differs_is_named(repository):
    current, baseline, better, longer = gather(repository, repository / "reports")
    assert protocol_differences(current, baseline) == protocol_differences(current, better) == []
    assert protocol_differences(current, longer) == ["opt.steps 900 instead of 300"]
    publish(repository, "vit", 0.0, scenes="b" * 64)
    assert protocol_differences(current, read_folder(repository / "reports", "x")) == ["other scenes"]
    current.rows.pop()
    assert protocol_differences(current, baseline) == ["other scored targets"]


def test_differences_are_paired_with_the_baseline_and_refused_runs_left_out(repository):
    results = gather(repository, repository / "reports")
    found = verdicts(results, PRIORS).differences["psnr_masked"]
    assert set(found) == {"this run", "better"}
    assert found["better"].interval.mean == pytest.approx(0.5, abs=0.05) and found["better"].distinguishable
    by_hand = [row["psnr_masked"] - results[1].scores()[key]["psnr_masked"] for key, row in results[0].scores().items()]
    assert found["this run"].interval.mean == pytest.approx(np.mean(by_hand)) and found["this run"].interval.n == 24
    assert (
        not verdicts(results[:1]).differences["psnr_masked"] and not verdicts(results[1:2]).differences["psnr_masked"]
    )


def test_without_a_seed_variance_single_trainings_decide_nothing(repository):
    results = gather(repository, repository / "reports")
    found = verdicts(results).differences["psnr_masked"]
    assert {each.verdict for each in found.values()} == {"not decidable"}


def trained(folder: Path, backbone: str, gains: dict[int, float]) -> list:
    """A result per seed."""
    found = []
    for seed, gain in gains.items():
        publish(folder, backbone, gain, noise=10 * len(backbone) + seed, seed=seed)
        found.append(read_folder(folder / "reports", f"{backbone}-{seed}"))
    return found


def test_runs_that_differ_in_their_seed_alone_become_one_result(tmp_path):
    runs = trained(tmp_path, "clip", {0: 0.5, 1: 0.9, 2: 0.1})
    merged, other = merge_seeds([runs[0], *trained(tmp_path, "vit", {1: 0.0}), runs[2], runs[1]])
    assert (merged.name, merged.detail, other.detail) == ("clip-0", "3 seeds", "") and list(merged.runs) == [0, 1, 2]
    for key, row in merged.scores().items():
        assert row["psnr_masked"] == pytest.approx(np.mean([run.scores()[key]["psnr_masked"] for run in runs]))
    assert merge_seeds([merged, other]) == [merged, other]


def test_runs_that_differ_in_more_or_in_nothing_are_not_joined(tmp_path):
    (first,) = trained(tmp_path, "clip", {0: 0.5})
    publish(tmp_path, "clip", 0.5, seed=1, opt={"steps": 900})
    longer = read_folder(tmp_path / "reports", "longer")
    publish(tmp_path, "clip", 0.7, seed=0)
    again = read_folder(tmp_path / "reports", "again")
    assert merge_seeds([first, longer, again]) == [first, longer, again]
    (second,) = trained(tmp_path, "clip", {1: 0.5})
    second.rows.pop()
    assert len(merge_seeds([first, second])) == 2
    assert protocol_differences(first, second) == ["other scored targets"]


def test_unlike_seed_sets_are_compared_by_all_their_seeds(tmp_path):
    bases = trained(tmp_path, "none", {0: 0.0, 1: 0.3, 2: -0.2})
    clips = trained(tmp_path, "clip", {1: 0.8, 2: 0.3, 3: 9.0})
    base, clip = merge_seeds(bases + clips)
    found = verdicts([base, clip]).differences["psnr_masked"]["clip-1"].interval
    means = [np.mean([row["psnr_masked"] for run in runs for row in run.scores().values()]) for runs in (clips, bases)]
    assert found.mean == pytest.approx(means[0] - means[1]) and (found.seeds, found.n) == ((3, 3), 24)
    assert protocol_differences(bases[0], clip) == []


def test_scores_are_a_row_per_seed_in_the_order_of_the_targets(tmp_path):
    runs = trained(tmp_path, "clip", {1: 0.8, 0: 0.3})
    (clip,) = merge_seeds(runs)
    targets = sorted(clip.scores())
    found = scene_scores(clip, "psnr_masked", targets)
    assert (found.seeds, found.n, found.means.shape) == ((0, 1), 24, (2, 8))
    by_hand = np.mean([runs[0].scores()["s3", str(target)]["psnr_masked"] for target in range(3)])
    assert found.means[1, 3] == pytest.approx(by_hand)
    assert scene_scores(clip, "psnr_masked", targets[1:]) is None and scene_scores(clip, "lpips", []) is None


def test_a_single_training_borrows_the_seed_variance_of_others(tmp_path):
    several = merge_seeds(
        trained(tmp_path, "none", {0: 0.0, 1: 0.02, 2: -0.02}) + trained(tmp_path, "clip", {0: 0.8, 1: 0.81, 2: 0.83})
    )
    (single,) = trained(tmp_path, "vit", {0: 0.5})
    found = verdicts([*several, single], PRIORS).differences["psnr_masked"]
    assert {each.interval.source for each in found.values()} == {POOLED} and found["vit-0"].distinguishable
    alone = verdicts([several[0], single], {}).differences["psnr_masked"]["vit-0"]  # the baseline's own seeds alone
    assert alone.interval.source == POOLED and alone.interval.seeds == (1, 3)
    first = verdicts([*trained(tmp_path, "none", {0: 0.0}), single], PRIORS).differences["psnr_masked"]["vit-0"]
    assert first.interval.source == PRIOR


def test_everything_that_gets_a_verdict_is_corrected_together(tmp_path):
    several = [
        trained(tmp_path, name, {0: gain})[0] for name, gain in (("none", 0.0), ("constant", 0.1), ("clip", 0.9))
    ]
    priors = PRIORS | {"ssim_masked": {"own": 0.003, "shared": 0.002}}
    found = verdicts(several, priors, ("psnr_masked", "psnr"))
    # two experiments in two headline metrics against the baseline, one against the control
    assert found.differences["psnr_masked"]["clip-0"].claims == 5 and set(found.controlled) == {"clip-0"}
    assert set(found.differences["ssim_masked"]) == {"constant-0", "clip-0"} and not found.differences["lpips_masked"]
    assert found.differences["psnr"] == {} and set(found.ranks) == {"none-0", "constant-0", "clip-0"}
    assert found.ranks["clip-0"] == (1, 1) and verdicts(several[:2], priors).ranks == {}
    for each in several:  # a metric that is no headline
        each.rows[:] = [row | {"psnr": row["psnr_masked"]} for row in each.rows]
    shown = verdicts(several, priors, ("psnr_masked", "psnr")).differences["psnr"]["clip-0"]
    assert shown.verdict == "no verdict" or shown.verdict == "not decidable"
    assert shown.p_holm is None and shown.interval.mean == pytest.approx(0.9, abs=0.1)


def test_a_work_tree_that_equals_no_commit_is_not_joined_with_their_seeds(repository):
    publish(repository, "clip", 0.5, noise=5, seed=7)
    assert [each.detail for each in gather(repository, repository / "reports")] == ["", "", "", ""]

    def git(*words):
        return subprocess.run(
            ["git", "-C", repository, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("commit", "-qam", "seven")
    head = git("rev-parse", "HEAD")
    publish(repository, "clip", 0.6, noise=6, seed=8)
    git("commit", "-qam", "eight")
    git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/eight", "HEAD")
    git("reset", "-q", "--hard", head)
    (current,) = gather(repository, repository / "reports")
    assert (current.name, current.detail) == ("this run (main)", "2 seeds")


def test_the_control_is_the_comparable_result_with_constant_features(tmp_path):
    (base,) = trained(tmp_path, "none", {0: 0.0})
    publish(tmp_path, "constant", 0.1, opt={"steps": 900})
    longer = read_folder(tmp_path / "reports", "longer")
    (constant,) = trained(tmp_path, "constant", {0: 0.1})
    assert control_of([base, longer, constant]) is constant and control_of([base, longer]) is None


def test_what_was_trained_elsewhere_has_a_difference_and_neither_verdict_nor_rank(tmp_path):
    arms = [trained(tmp_path, name, {0: gain})[0] for name, gain in (("none", 0.0), ("clip", 0.9), ("vit", 0.1))]
    publish(tmp_path, "clip", 5.0, trained=("procedural", "rooms"))
    other = read_folder(tmp_path / "reports", "other")
    assert protocol_differences(arms[0], other) == ["training.category rooms instead of all"]
    found = judge([*arms, other], arms[0], None, PRIORS, 0.95, elsewhere=frozenset(["other"]))
    alone = judge(arms, arms[0], None, PRIORS, 0.95)
    shown = found.differences["psnr_masked"]["other"]
    assert shown.interval.mean == pytest.approx(5.0, abs=0.1) and shown.verdict == "no verdict"
    assert found.ranks == alone.ranks and set(found.ranks) == {"none-0", "clip-0", "vit-0"}
    claimed = found.differences["psnr_masked"]["clip-0"]
    assert claimed.claims == 2 and claimed.p_holm == alone.differences["psnr_masked"]["clip-0"].p_holm


def test_results_of_other_code_or_packages_are_not_comparable_unless_that_is_let_be(tmp_path):
    (base,) = trained(tmp_path, "none", {0: 0.0})
    publish(tmp_path, "clip", 0.5, code="d" * 16)
    clip = read_folder(tmp_path / "reports", "clip")
    clip.about["versions"]["torch"] = "2.1"
    assert protocol_differences(base, clip) == ["other code", "versions.torch 2.1 instead of 2.0"]
    assert protocol_differences(base, clip, ("code", "versions")) == []
    assert reference_of([clip, base]) is None and reference_of([clip, base], ("code", "versions")) is base


def test_ranks_are_given_for_three_or_more_runs():
    assert verdicts([made_up_result("a", 0), made_up_result("b", 1)], PRIORS).ranks == {}
    results = [made_up_result("a", 0), made_up_result("b", 0), made_up_result("c", 1)]
    assert verdicts(results).ranks == {"a": (1, 3), "b": (1, 3), "c": (1, 3)}  # nothing is known of other seeds
    assert verdicts(results, PRIORS).ranks == {"a": (2, 3), "b": (2, 3), "c": (1, 1)}
