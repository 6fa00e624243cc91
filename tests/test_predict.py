import json

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData

from src import predict as command
from src.geometry.alignment import camera_in_prediction
from src.geometry.cameras import unproject
from src.procedural.scenes import generate
from src.render import about_episode, episode_renders
from src.renders.episode_file import Rendered, write_episode
from src.renders.ply import read_ply, write_ply
from src.scenes.scene import Scene
from src.splatt3r.prediction import splat
from src.splatt3r.samples import collate
from src.splatting.render import render
from tests.helpers.trained import SIZE, inside, samples, settings, train

NAMES = ("means", "quats", "scales", "opacities", "sh")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained folder, its configuration, and the photographs of its pair as PNG files."""
    folder = tmp_path_factory.mktemp("trained")
    config = train(folder)
    scene = Scene.open(folder / "data/scenes/scenes/pair.safetensors")
    for name in scene.names:
        Image.fromarray(scene.frame(name).image).save(folder / f"{name}.png")
    return folder, config


@pytest.fixture
def run(trained, monkeypatch, capsys):
    """The command in the trained folder, at its resolution; returns what it printed."""
    folder, config = trained
    monkeypatch.setattr(command, "load_config", lambda: config)

    def call(*words: str) -> str:
        with inside(folder):
            command.main([str(word) for word in words])
        return capsys.readouterr().out

    return call


def refusal(run, *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        run(*words)
    return str(stop.value)


def test_two_photographs_give_the_pipelines_gaussians_bit_for_bit(trained, run, tmp_path):
    folder, config = trained
    run("000.png", "001.png", "-o", tmp_path / "scene.ply")
    reader, _ = samples(folder, ("000", "001"), ("001",), "pair")
    with inside(folder), torch.inference_mode():
        model = command.trained_model(config)
        sample = reader[0]
        batch = collate([sample])
        expected = splat(model.network, batch.contexts.images, batch.tokens, batch.features).gaussians[0]
        found = model.predict(sample.contexts.images)[0].gaussians[0]
    assert all(torch.equal(getattr(found, name), getattr(expected, name)) for name in NAMES)
    written = read_ply(tmp_path / "scene.ply")
    assert len(written) == 2 * SIZE[0] * SIZE[1]
    for name in NAMES:
        torch.testing.assert_close(getattr(written, name), getattr(expected, name), rtol=1e-5, atol=1e-6)


def test_the_exported_file_shows_the_scored_image_again(trained, tmp_path):
    """Prediction, export, an independent reader, and the renderer, against the picture that `evaluate` scores."""
    folder, config = trained
    reader, episode = samples(folder, ("000", "002"), ("001", "003"), "many")
    with inside(folder), torch.inference_mode():
        network = command.trained_model(config).network
        pictures, clouds = episode_renders(network, reader[0], True, "strict")
        write_episode(tmp_path, about_episode(episode, episode.bin), pictures)
    write_ply(tmp_path / "e.ply", clouds["render"])
    rendered, sample = Rendered.read(tmp_path / "e.safetensors"), reader[0]
    assert len(PlyData.read(tmp_path / "e.ply")["vertex"]) == len(clouds["render"])
    for alignment, factor in (("raw", 1.0), ("aligned", rendered.tensors["scale"].item())):
        cameras = camera_in_prediction(sample.contexts.c2w[0], sample.targets.c2w, factor)
        again = render(read_ply(tmp_path / "e.ply"), cameras, sample.targets.K, SIZE).images.clamp(0, 1).double()
        scored = rendered.picture("render", alignment).clamp(0, 1).double()
        assert scored.std() > 0.05
        assert -10 * torch.log10((again - scored).square().mean()) >= 60


def photograph(path, size: tuple[int, int], mode: str = "RGB", **options) -> None:
    """Blotches that are nowhere alike."""
    rng = np.random.default_rng(size[0])
    image = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    image.convert(mode).save(path, **options)


@pytest.mark.parametrize(("first", "second"), [((333, 251), (97, 640)), ((1280, 719), (33, 40))])
def test_photographs_of_any_size_and_orientation_are_taken(run, tmp_path, first, second):
    photograph(tmp_path / "a.jpg", first)
    photograph(tmp_path / "b.jpg", second)
    said = run(tmp_path / "a.jpg", tmp_path / "b.jpg", "-o", tmp_path / "scene.ply")
    assert f"{first[0]} x {first[1]} pixels, the middle" in said and "7 training steps" in said
    assert "DINOv2 ViT-S/14 (random weights, untrained)" in said and "tiny" in said.lower()
    assert len(read_ply(tmp_path / "scene.ply")) == 2 * SIZE[0] * SIZE[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "b.jpg", "scene.ply"]


def test_files_are_replaced_only_when_told_to(run, tmp_path):
    output = tmp_path / "scene.ply"
    output.write_text("mine")
    assert "scene.ply exists" in refusal(run, "000.png", "001.png", "-o", output)
    assert output.read_text() == "mine"
    run("000.png", "001.png", "-o", output, "--force")
    assert len(read_ply(output)) == 2 * SIZE[0] * SIZE[1]


def test_wrong_requests_are_refused_in_a_sentence_before_anything_is_written(run, tmp_path):
    good = "000.png", "001.png"
    assert "must end in .ply" in refusal(run, *good, "-o", tmp_path / "scene.obj")
    assert "must end in .png or .gif" in refusal(run, *good, "-o", tmp_path / "a.ply", "--preview", tmp_path / "a.mp4")
    assert "no folder" in refusal(run, *good, "-o", tmp_path / "nowhere/a.ply")
    assert "no photograph nothing.jpg" in refusal(run, "nothing.jpg", "001.png", "-o", tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())


def test_a_compressed_file_and_a_preview_are_written(run, tmp_path, monkeypatch):
    side = 128
    config = settings(f"datasets.procedural.resolution=[{side},{side}]")
    monkeypatch.setattr(command, "load_config", lambda: config)
    photographs = [tmp_path / "first.png", tmp_path / "second.png"]
    # Of what the bundled network was made for: no camera need fit its points of a painted wall.
    for path, frame in zip(photographs, generate("objects", 0, 12, (side, side), 1, 1)):
        Image.fromarray(frame.image).save(path)
    run(*photographs, "-o", tmp_path / "scene.splat", "--preview", tmp_path / "way.gif")
    assert (tmp_path / "scene.splat").stat().st_size == 32 * 2 * side * side
    with Image.open(tmp_path / "way.gif") as film:
        assert film.n_frames > 10 and film.size == (side, side)
    run(*photographs, "-o", tmp_path / "scene.ply", "--preview", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (5 * side, 2 * side)
        first, second = (np.asarray(sheet.crop((x, 0, x + side, side))) for x in (0, 4 * side))
    assert np.array_equal(first, np.asarray(Image.open(photographs[0])))
    assert np.array_equal(second, np.asarray(Image.open(photographs[1])))


@pytest.fixture(scope="module")
def posed(tmp_path_factory):
    """A trained folder of the posed track, its configuration, and a file of the cameras of two of its photographs."""
    folder = tmp_path_factory.mktemp("posed")
    config = train(folder, "model.cameras=posed", "model.backbone=none")
    scene = Scene.open(folder / "data/scenes/scenes/pair.safetensors")
    for name in scene.names:
        Image.fromarray(scene.frame(name).image).save(folder / f"{name}.png")
    cameras = {"K": scene.K[:2].tolist(), "c2w": scene.c2w[:2].tolist()}
    (folder / "cameras.json").write_text(json.dumps(cameras))
    return folder, config, scene


def posed_run(posed, monkeypatch, *words: str) -> None:
    monkeypatch.setattr(command, "load_config", lambda: posed[1])
    with inside(posed[0]):
        command.main([str(word) for word in words])


def test_given_cameras_put_every_gaussian_on_its_ray(posed, monkeypatch, capsys, tmp_path):
    folder, config, scene = posed
    posed_run(posed, monkeypatch, "000.png", "001.png", "-o", tmp_path / "s.ply", "--cameras", "cameras.json")
    assert "cameras given" in capsys.readouterr().out and len(read_ply(tmp_path / "s.ply")) == 2 * SIZE[0] * SIZE[1]
    with inside(folder):
        images = torch.stack([scene.view(name, SIZE).image for name in ("000", "001")])
        K, c2w = torch.from_numpy(scene.K[:2]), torch.from_numpy(scene.c2w[:2])
        output, _ = command.trained_model(config).predict(images, (K, c2w))
    points = output.points1.pts3d[0].double()
    rays = unproject(torch.ones(SIZE[1], SIZE[0], dtype=torch.float64), K[0])
    assert torch.allclose(points / points[..., 2:], rays, atol=1e-4)


def test_cameras_are_estimated_where_none_are_given_or_said_not_to_fit(posed, monkeypatch, capsys, tmp_path):
    try:
        posed_run(posed, monkeypatch, "000.png", "001.png", "-o", tmp_path / "s.ply")
    except SystemExit as stop:  # the network is a disturbed one
        assert "fit no camera" in str(stop.code)
    else:
        assert "cameras estimated" in capsys.readouterr().out and (tmp_path / "s.ply").exists()


def test_cameras_that_are_none_are_sentences(posed, monkeypatch, run, tmp_path):
    folder, _, scene = posed

    def answer(text: str) -> str:
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(SystemExit) as stop:
            posed_run(
                posed, monkeypatch, "000.png", "001.png", "-o", tmp_path / "s.ply", "--cameras", tmp_path / "c.json"
            )
        return str(stop.value.code)

    K, c2w = scene.K[:2].tolist(), scene.c2w[:2].tolist()
    assert "is no file of cameras" in answer("{") and "is no file of cameras" in answer(json.dumps({"K": K}))
    assert "(2, 3, 3) and (2, 4, 4)" in answer(json.dumps({"K": K, "c2w": c2w[:1]}))
    assert "no rotation" in answer(json.dumps({"K": K, "c2w": (2 * scene.c2w[:2]).tolist()}))
    assert "positive focal" in answer(json.dumps({"K": (-scene.K[:2]).tolist(), "c2w": c2w}))
    monkeypatch.undo()


def test_a_model_of_the_unposed_track_takes_no_cameras(posed, run, trained, tmp_path):
    cameras = posed[0] / "cameras.json"
    assert "takes no cameras" in refusal(run, "000.png", "001.png", "-o", tmp_path / "s.ply", "--cameras", cameras)
