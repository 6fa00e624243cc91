import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from src import extract, prepare, probe, render, train, weights
from src.config import load_config
from src.reproducible.files import read_json, write_json
from src.run import memory_advice, run
from src.scenes.scene import write_scene
from src.splatt3r.fusion import FusionConfig
from src.splatt3r.network import Splatt3R
from src.splatt3r.readout import read_solution
from src.train import by_rate
from tests.helpers.fabricated import frames
from tests.helpers.miniatures import computing_as_before
from tests.helpers.networks import GEOMETRY
from tests.helpers.repository import ROOT

MINIATURE = [
    "eval.lpips=none",
    "loss.lpips_loss_weight=0",
    "model.cameras=unposed",
    "datasets.procedural.resolution=[64,48]",
    "datasets.procedural.episodes.per_bin=1",
    "opt.steps=3",
    "opt.val_every=3",
    "opt.log_every=1",
    "eval.num_plys=0",
    "model.backbone=rgb",
    "opt.lr=0.002",
    "opt.lr_fusion=null",
    "threads=1",
    "probe.pairs=3",
]
TINY = replace(GEOMETRY, enc_embed_dim=48, dec_embed_dim=64)


def config(*overrides: str):
    return load_config([*MINIATURE, *overrides], ROOT)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory) -> Path:
    """A folder in which all stages before `train` have run, on painted walls in place of rendered scenes."""
    folder = tmp_path_factory.mktemp("extracted")
    shutil.copytree(ROOT / "data/bundled", folder / "data/bundled")
    scenes = []
    for seed, split in enumerate(("train", "train", "val", "test")):
        about = {"id": f"wall__{seed}", "category": "objects", "units": "metre"}
        digest = write_scene(folder / f"data/raw/{seed}.safetensors", frames(seed, 6, (64, 48)), about, lossless=True)
        scenes.append(
            {
                "id": about["id"],
                "category": "objects",
                "split": split,
                "file": f"{seed}.safetensors",
                "sha256": digest,
                "seed": seed,
            }
        )
    write_json(folder / "data/raw/manifest.json", {"dataset": "procedural", "views": 6, "scenes": scenes})
    with pytest.MonkeyPatch.context() as patch, computing_as_before():
        patch.chdir(folder)
        prepare.main(config())
        weights.main(config())
        extract.main(config(), "geometry")
        extract.main(config(), "backbone")
        probe.main(config())
    return folder


def test_the_posed_track_trains_on_the_probes_readout(workspace):
    settings = config("model.cameras=posed")
    train.main(settings)
    trained = load_file("data/model/trained.safetensors")
    for name, tensor in read_solution("data/readout.safetensors", "both").items():
        assert torch.equal(trained[f"readout.{name}"], tensor.float()) and tensor.abs().max() > 0
    assert not any(name.startswith("downstream_head2") for name in trained)
    render.main(settings)
    assert list(Path("data/renders").glob("*.safetensors"))


@pytest.fixture
def workspace(extracted, monkeypatch) -> Path:
    monkeypatch.chdir(extracted)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with computing_as_before():
        yield extracted


def trained(folder: Path, *overrides: str) -> dict:
    """The record of a training run in `folder`."""
    shutil.rmtree(folder / "data/model", ignore_errors=True)
    train.main(config(*overrides))
    return read_json(folder / "data/model/record.json")


def rendered(folder: Path, *overrides: str) -> torch.Tensor:
    """The test episodes' held-out views as the model trained last shows them."""
    render.main(config(*overrides))
    files = sorted((folder / "data/renders").glob("*.safetensors"))
    return torch.cat([load_file(path)["render_aligned"] for path in files])


def test_a_fused_run_ends_elsewhere_than_the_baseline_and_reports_its_fusion(workspace):
    gated = trained(workspace, "model.fusion_mode=gated", "opt.lr_fusion=0.02")
    fused = rendered(workspace, "model.fusion_mode=gated")
    path = workspace / "data/features/backbone/record.json"
    record = read_json(path)
    write_json(path, record | {"channels": 0})  # as model.backbone=none leaves it
    bare = trained(workspace, "model.backbone=none")
    baseline = rendered(workspace, "model.backbone=none")
    write_json(path, record)
    assert fused.shape == baseline.shape and not torch.equal(fused, baseline)
    assert bare["fusion"] == {"parameters": 0, "sites": {}}
    assert gated["trainable_parameters"] - bare["trainable_parameters"] == gated["fusion"]["parameters"] > 0
    ((site, found),) = gated["fusion"]["sites"].items()
    assert site == "4" and found["relative_change"] > 1e-4 and found["weight_std"] > 1e-5


def test_the_reported_figures_are_those_of_the_saved_adapter(workspace):
    found = trained(workspace, "model.fusion_mode=weighted_sum")["fusion"]["sites"]["4"]
    assert found["weight"] == load_file(workspace / "data/model/trained.safetensors")["fusion.4.weight"].item() != 0


def results(folder: Path) -> list[bytes]:
    """The trained tensors and the curves."""
    paths = [folder / "data/model/trained.safetensors", *sorted((folder / "data/train/plots").rglob("*.tsv"))]
    return [path.read_bytes() for path in paths]


def test_a_loss_that_is_no_number_stops_the_training(workspace, monkeypatch):
    """With a sentence, and without a model; the checkpoint of before is not touched."""
    whole = train.photometric_loss
    calls = iter(range(100))

    def broken(*arguments):
        parts = whole(*arguments)
        return {name: value * (float("nan") if next(calls) > 2 else 1) for name, value in parts.items()}

    monkeypatch.setattr(train, "photometric_loss", broken)
    shutil.rmtree("data/model", ignore_errors=True)
    with pytest.raises(ValueError, match=r"train/\w+ of step \d is nan, so the weights are lost; lower opt.lr"):
        train.main(config())
    assert not Path("data/model").exists()


def test_a_run_cut_short_after_its_last_step_is_not_trained_again(workspace, monkeypatch, capsys):
    trained(workspace)
    wanted = results(workspace)
    shutil.rmtree("data/model")

    def cut(*_):
        raise KeyError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(train, "effects", cut)
        with pytest.raises(KeyError):
            train.main(config())
    shutil.rmtree("data/train")
    monkeypatch.setattr(train.TrainingModule, "training_step", lambda *_: pytest.fail("trained again"))
    train.main(config())
    assert "resuming" in capsys.readouterr().out and results(workspace) == wanted
    assert not list(Path("scratch").glob("train-*"))


def test_ctrl_c_leaves_lightning_as_such_and_the_run_goes_on_at_its_step(workspace, handlers, monkeypatch, capsys):
    changes = ["opt.steps=4", "opt.val_every=2"]
    trained(workspace, *changes)
    wanted = results(workspace)
    capsys.readouterr()
    step = train.TrainingModule.training_step

    def interrupted(fit, *arguments):
        if fit.trainer.global_step == 3:
            raise KeyboardInterrupt
        return step(fit, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train.TrainingModule, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.main(config(*changes))
    assert "3/4" in capsys.readouterr().err
    train.main(config(*changes))
    bar = capsys.readouterr().err.split("\r")
    assert "| 2/4 [" in bar[1] and results(workspace) == wanted  # from the checkpoint on
    assert "| 4/4 [" in bar[-1] and "loss=" in bar[-1]


@pytest.mark.parametrize(
    "overrides",
    [
        ["opt.gradient_checkpointing=true"],
        ["opt.gradient_checkpointing=true", "model.strategy=full_finetune", "model.fusion_site=encoder"],
    ],
)
def test_checkpointing_ends_with_the_same_weights(workspace, overrides):
    trained(workspace, *overrides[1:])
    expected = load_file(workspace / "data/model/trained.safetensors")
    trained(workspace, *overrides)
    found = load_file(workspace / "data/model/trained.safetensors")
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in found)


CUT = """import sys
from src import train
from src.config import load_config

begin, config = train.TrainingModule.on_train_epoch_start, load_config(sys.argv[1:])

def cut(fit):
    if fit.trainer.global_step:
        raise KeyError("cut")
    begin(fit)

train.TrainingModule.on_train_epoch_start = cut
try:
    train.main(config)
except KeyError:
    train.TrainingModule.on_train_epoch_start = begin
    train.main(config)
"""


def test_two_processes_end_where_one_with_twice_the_batch_does_though_cut_short(workspace):
    """Over all pixels, as the mean over those seen depends on how the pairs are shared out. A step moves a weight by up to
    2e-3, on average all agree to a 400th of that; where a gradient is next to nothing, Adam lets rounding decide."""
    changes = ["opt.steps=2", "opt.val_every=1", "loss.average_over_mask=false"]
    wanted = trained(workspace, *changes, "data.batch_size=2")
    weights, curves = load_file("data/model/trained.safetensors"), Path("data/train/plots/metrics")
    before = {path: path.read_text().split() for path in sorted(curves.rglob("*.tsv"))}
    for folder in ("data/model", "data/train"):
        shutil.rmtree(folder)
    shutil.copy(ROOT / "params.yaml", workspace)
    Path("cut.py").write_text(CUT)
    command = [sys.executable, "cut.py", *MINIATURE, *changes, "data.batch_size=1", "opt.devices=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("resuming from") == 1, done.stderr
    for name, tensor in load_file("data/model/trained.safetensors").items():
        expected = weights.pop(name)
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-3)
        assert (tensor - expected).abs().mean() < 5e-6, name
    assert not weights and not list(Path("scratch").glob("train-*"))
    assert read_json("data/model/record.json").keys() == wanted.keys()
    for path, lines in before.items():
        found = path.read_text().split()
        assert found[:2] == lines[:2]
        assert [float(x) for x in found[2:]] == pytest.approx([float(x) for x in lines[2:]], rel=1e-3)


def test_training_keeps_to_its_number_of_threads():
    with computing_as_before():
        torch.set_num_threads(2)
        train.TrainingModule(network("feature_extraction"), config(), None, True, None, None).setup("fit")
        assert torch.get_num_threads() == 1


def test_half_precision_trains_on_the_cpu_as_bf16_and_is_refused_as_fp16(workspace):
    record = trained(workspace, "opt.precision=bf16-mixed")
    state = load_file(workspace / "data/model/trained.safetensors")
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in state.values())
    assert record["fusion"]["sites"]["4"]["relative_change"] > 0
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="opt.precision is 16-mixed, but torch sees no CUDA device"):
            trained(workspace, "opt.precision=16-mixed")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), MemoryError(), None]
)
def test_running_out_of_memory_says_what_takes_less(workspace, monkeypatch, capfd, error):
    def fail(*_):
        if error is None:
            torch.empty(2**60, dtype=torch.uint8)  # the CPU allocator's own words
        raise error

    monkeypatch.setattr(train, "fit_network", fail)
    monkeypatch.setattr("sys.argv", ["train", *MINIATURE])
    shutil.copy(ROOT / "params.yaml", workspace / "params.yaml")
    with pytest.raises(SystemExit) as caught:
        run(train.main, "train")
    message = str(caught.value)
    assert message.startswith("error: Memory ran out (") and "\n" not in message
    for advice in ("data.batch_size=1", "dinov2_vits14", "opt.gradient_checkpointing=true", "bf16-mixed"):
        assert advice in message


def test_other_runtime_errors_pass_through_the_memory_advice():
    with pytest.raises(RuntimeError, match="shapes"):
        with memory_advice():
            raise RuntimeError("shapes differ")


def network(strategy: str) -> Splatt3R:
    model = Splatt3R(TINY, fusion=FusionConfig(24), generator=torch.Generator().manual_seed(0))
    model.apply_strategy(strategy)
    return model


def test_one_rate_is_one_group_in_the_networks_order():
    model = network("full_finetune")
    for overrides in ([], ["opt.lr_fusion=0.002", "opt.lr_geometry=0.002"]):
        (group,) = by_rate(model, config(*overrides).opt)
        assert group["lr"] == 0.002
        assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters() if p.requires_grad]


def test_every_part_learns_at_its_own_rate():
    model = network("full_finetune")
    names = {id(p): name for name, p in model.named_parameters()}
    groups = by_rate(model, config("opt.lr_fusion=0.01", "opt.lr_geometry=0.0001").opt)
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert rates.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, rate in rates.items():
        wanted = 0.01 if name.startswith("fusion.") else 0.002 if ".gaussian_dpt." in name else 0.0001
        assert rate == wanted, name


def test_a_step_moves_each_part_by_its_own_rate_and_the_schedule_scales_all():
    model = network("fusion_finetune")
    settings = config("opt.lr_fusion=0.01", "opt.lr_geometry=0.0001", "opt.scheduler=multistep", "opt.steps=2")
    module = train.TrainingModule(model, settings, None, True, None, None)
    optimisation = module.configure_optimizers()
    optimizer, schedule = optimisation["optimizer"], optimisation["lr_scheduler"]["scheduler"]
    chosen = {
        "fusion.4.join.0.bias": 0.01,
        "dec_norm.bias": 0.0001,
        "downstream_head1.gaussian_dpt.dpt.head.4.bias": 0.002,
    }
    for share in (1, 0.1):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for p in model.parameters():
            p.grad = torch.ones_like(p) if p.requires_grad else None
        optimizer.step()  # Adam under a constant gradient moves by its rate
        schedule.step()
        for name, p in model.named_parameters():
            moved = (before[name] - p).detach()
            if name in chosen:
                torch.testing.assert_close(moved, torch.full_like(p, share * chosen[name]), rtol=1e-2, atol=1e-6)
            elif not p.requires_grad:
                assert not moved.any()


def test_the_losses_lpips_follows_the_module_to_its_device(monkeypatch):
    lpips = torch.nn.Conv2d(3, 1, 1).requires_grad_(False)
    module = train.TrainingModule(
        network("feature_extraction"), config("loss.lpips_loss_weight=0.25"), None, True, lpips, None
    )
    module.to("meta")  # a device that any machine has
    monkeypatch.setattr(module, "renders", lambda _: (None, None, None))
    monkeypatch.setattr(
        train,
        "photometric_loss",
        lambda *arguments: {"devices": [argument.weight.device.type for argument in arguments if argument is lpips]},
    )
    batch = SimpleNamespace(targets=SimpleNamespace(images=None))
    assert module.training_step(batch, 0) == {"devices": ["meta"]}
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["state_dict"] and not any("lpips" in name for name in checkpoint["state_dict"])
