"""Chosen test scenes as the page's viewer takes them: two models' Gaussians in few bytes, and cameras to stand at."""

import base64
import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from scipy.spatial.transform import Rotation

from src.experiments.result import ExperimentResult
from src.geometry.alignment import camera_in_prediction
from src.page.strip import DEPTH_COLOURS, bytes_of, data_uri
from src.page.verdict import BASELINE_NAMES
from src.renders.episode_file import Rendered
from src.renders.ply import read_ply
from src.scenes.scene import Scene, SceneRecord
from src.splatting.gaussians import Gaussians
from src.splatting.render import render
from src.splatting.sh import dc_to_rgb

LIBRARY = Path(__file__).parent / "vendor" / "gsplat.js"
LIBRARY_LICENCE = LIBRARY.with_suffix(".LICENSE")
MAX_SCENES = 2  # scenes on the page, of different families where there are such
UNIT = 0.5  # scene units within which the packed positions are as good as linear
STOPS = 9  # of the colour map in the shader
DEPTH_SHADER = (  # what the library's vertex shader says, and what it says here; `cam` is the Gaussian in the camera's frame
    ("uniform float depthFade;", "uniform float depthFade;\nuniform vec2 depthRange;"),
    ("vColor = colorTransform * color;", "vColor = colorTransform * color;\n    {depth}"),
)
BASELINE_ENDING = ".points_splat.ply"  # of an episode's baseline, beside the model's .ply


@dataclass(frozen=True)
class ViewerScene:
    """One test episode to look around in, in view 1's camera frame and the prediction's scale.

    size, focal  (W, H) of the images; (fx, fy) in their pixels
    cameras      words -> c2w (4, 4), the first context view's first
    models       words -> Gaussians, this run's first
    """

    episode: str
    size: tuple[int, int]
    focal: tuple[float, float]
    cameras: dict[str, np.ndarray]
    models: dict[str, Gaussians]


def depth_colours() -> str:
    """GLSL that colours a Gaussian by its depth, near bright, as the page's depth pictures do, where depthRange says so."""
    stops = ", ".join(
        f"vec3({r:.3f}, {g:.3f}, {b:.3f})" for r, g, b, _ in colormaps[DEPTH_COLOURS](np.linspace(1, 0, STOPS))
    )
    return (
        f"if (depthRange.y > 0.0) {{ vec3 stops[{STOPS}] = vec3[{STOPS}]({stops}); "
        f"float at = {STOPS - 1}.0 * clamp((cam.z - depthRange.x) / (depthRange.y - depthRange.x), 0.0, 1.0); "
        f"int below = min(int(at), {STOPS - 2}); vColor.rgb = mix(stops[below], stops[below + 1], at - float(below)); }}"
    )


def viewer_library() -> str:
    """The viewer library as one function of the Worker class it shall use, `gsplat`, which returns the exports. Its vertex
    shader gets a uniform more, `depthRange`: (near, far) to show depth, (0, 0) to show colour."""
    text = LIBRARY.read_text("utf8").replace("//# sourceMappingURL=index.es.js.map", "")
    for found, wanted in DEPTH_SHADER:
        assert found in text, f"{LIBRARY.name} is another version: {found}"
        text = text.replace(found, wanted.replace("{depth}", depth_colours()), 1)
    body, exports = re.fullmatch(r"(.*)\nexport \{([^}]*)\};\s*", text, re.DOTALL).groups()
    names = (word.split(" as ") for word in exports.split(","))
    members = ", ".join(f"{public.strip()}: {local.strip()}" for local, public in names)
    return f"/*\n{LIBRARY_LICENCE.read_text('utf8')}*/\nfunction gsplat(Worker) {{\n{body}\nreturn {{ {members} }};\n}}"


def quantised(values: np.ndarray, dtype: type) -> tuple[np.ndarray, list[float]]:
    """Values as whole numbers that fill an unsigned type, and the [low, high] that 0 and its maximum stand for."""
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) / max(high - low, 1e-9) * np.iinfo(dtype).max).astype(dtype), [low, high]


def packed_gaussians(gaussians: Gaussians) -> dict:
    """17 bytes per Gaussian, gzip and base64: asinh(position / UNIT) in 16 bits per axis, log scales, red, green, blue,
    opacity and wxyz in 8 bits each. Colours are those of the SH degree 0."""
    g = gaussians.detach().to("cpu", torch.float64)
    places, place_range = quantised(np.arcsinh(g.means.numpy() / UNIT), np.uint16)
    scales, scale_range = quantised(g.scales.log().numpy(), np.uint8)
    colours = torch.cat([dc_to_rgb(g.sh[:, 0]), g.opacities[:, None]], -1).clamp(0, 1).mul(255).round().byte().numpy()
    turns = torch.nn.functional.normalize(g.quats, dim=-1).mul(127).round().numpy().astype(np.int8)
    data = b"".join(part.tobytes() for part in (places.astype("<u2"), scales, colours, turns))
    return {
        "count": len(g),
        "places": place_range,
        "scales": scale_range,
        "data": base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii"),
    }


def camera_entry(name: str, c2w: np.ndarray) -> dict:
    x, y, z, w = Rotation.from_matrix(c2w[:3, :3]).as_quat().tolist()
    return {"name": name, "position": c2w[:3, 3].tolist(), "rotation": [x, y, z, w]}


def distance(gaussians: Gaussians) -> float:
    """How far ahead of the first camera the scene is: the median depth of what lies before it."""
    depth = gaussians.means[:, 2]
    return depth[depth > 0].median().item() if (depth > 0).any() else 1.0


def depth_range(gaussians: Gaussians) -> list[float]:
    """[near, far] between which depth is coloured: the middle 96 % of what lies before the first camera."""
    depth = gaussians.means[:, 2]
    ahead = depth[depth > 0].double().numpy()
    return np.percentile(ahead, [2, 98]).tolist() if len(ahead) else [0.0, 1.0]


def still(scene: ViewerScene, gaussians: Gaussians) -> np.ndarray:
    """(H, W, 3) uint8: a model's Gaussians from the first camera, for who cannot turn them."""
    (width, height), (fx, fy) = scene.size, scene.focal
    K = torch.tensor([[fx, 0, width / 2], [0, fy, height / 2], [0, 0, 1]])
    c2w = torch.from_numpy(next(iter(scene.cameras.values()))).float()
    return bytes_of(render(gaussians, c2w[None], K[None], scene.size).images[0])


def viewer_stills(scenes: list[ViewerScene]) -> list[dict]:
    """Words and picture of each model of each scene."""
    return [
        {"words": f"{scene.episode.replace('__', ' · ')}: {name}", "picture": data_uri(still(scene, gaussians))}
        for scene in scenes
        for name, gaussians in scene.models.items()
    ]


def viewer_payload(scenes: list[ViewerScene]) -> str:
    """What viewer.js reads, as JSON that cannot end its script element."""
    entries = [
        {
            "episode": scene.episode,
            "size": scene.size,
            "focal": scene.focal,
            "unit": UNIT,
            "distance": distance(next(iter(scene.models.values()))),
            "depth": depth_range(next(iter(scene.models.values()))),
            "cameras": [camera_entry(name, c2w) for name, c2w in scene.cameras.items()],
            "models": [{"name": name} | packed_gaussians(gaussians) for name, gaussians in scene.models.items()],
        }
        for scene in scenes
    ]
    return json.dumps(entries).replace("<", "\\u003c")


def chosen_episodes(renders: Path) -> list[str]:
    """Of the exported episodes, by name, the first of each family, MAX_WALKS at most; more of one where it is alone."""
    names = sorted(path.stem for path in renders.glob("*.ply") if not path.name.endswith(BASELINE_ENDING))
    families = {name: Rendered.read(renders / f"{name}.safetensors").about["category"] for name in names}
    first = [name for number, name in enumerate(names) if families[name] not in list(families.values())[:number]]
    return (first + [name for name in names if name not in first])[:MAX_SCENES]


def viewer_scene(
    episode: str, renders: Path, scenes: Path, index: dict[str, SceneRecord], models: dict[str, Path]
) -> ViewerScene:
    """An episode with the Gaussians of each model's .ply file."""
    rendered = Rendered.read(renders / f"{episode}.safetensors")
    about, scene = rendered.about, Scene.open(scenes / index[rendered.about["scene"]].file)
    names = {f"context {number}": name for number, name in enumerate(about["contexts"], 1)}
    names |= {f"target view {name}": name for name in about["targets"]}
    views = [scene.view(name, rendered.resolution) for name in names.values()]
    scale, K = rendered.tensors["scale"].item(), views[0].K
    c2w = camera_in_prediction(views[0].c2w, torch.stack([view.c2w for view in views]), scale)
    return ViewerScene(
        episode,
        rendered.resolution,
        (K[0, 0].item(), K[1, 1].item()),
        dict(zip(names, c2w.double().numpy())),
        {name: read_ply(path) for name, path in models.items()},
    )


def viewer_scenes(
    current: ExperimentResult,
    second: tuple[ExperimentResult, dict[str, Path]] | None,
    renders: Path,
    scenes: Path,
    index: dict[str, SceneRecord],
) -> list[ViewerScene]:
    """The exported scenes to look around in: this run beside the second experiment, or else beside the splatted points."""
    found = []
    for episode in chosen_episodes(renders):
        models = {f"{current.name}: {current.label}": renders / f"{episode}.ply"}
        if second and f"{episode}.ply" in second[1]:
            models[f"{second[0].name}: {second[0].label}"] = second[1][f"{episode}.ply"]
        else:
            models[f"baseline: {BASELINE_NAMES['points_splat']}"] = renders / f"{episode}{BASELINE_ENDING}"
        found.append(viewer_scene(episode, renders, scenes, index, models))
    return found
