"""Stage `weights`: every frozen weight a run needs, fetched or copied, verified, and kept in one format.

    python -m src.weights [key=value ...]

reads the bundled geometry network, files in weights.root, or what publishers offer;
writes data/weights/geometry, backbone, lpips_loss, lpips_eval/<trunk>: record.json, and model.safetensors where there
are any
"""

import shutil
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from src.config import Config
from src.fetching.backbone import backbone_weights
from src.fetching.fetch import FetchError
from src.fetching.store import MODEL_FILE, fetched, renew
from src.mast3r.weight_file import CheckpointError, read_checkpoint, write_geometry
from src.pretrained.official import NAVER, NAVER_LICENCE, read_official
from src.pretrained.source import HUB, Source
from src.pretrained.trunks import TRUNKS, read_trunk
from src.reproducible.hashes import file_hash
from src.reproducible.seeds import fix_computation
from src.run import run

WEIGHTS = Path("data/weights")

SPLATT3R_LICENCE = f"non-commercial (Splatt3R); its MASt3R weights: {NAVER_LICENCE}"


def of_hub(repository: str, licence: str, megabytes: int) -> Source:
    """Weights of a repository on the hub; in a folder of its name they lie beside the config.json with their sizes."""
    return Source(
        f"{HUB}/{repository}/resolve/main/{MODEL_FILE}", licence, megabytes, file=f"{repository}/{MODEL_FILE}"
    )


GEOMETRIES = {
    source.name: (label, source)
    for label, source in (
        (
            "MASt3R ViT-L",
            Source(f"{NAVER}/MASt3R/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric.pth", NAVER_LICENCE, 2754),
        ),
        ("DUSt3R ViT-L", Source(f"{NAVER}/DUSt3R/DUSt3R_ViTLarge_BaseDecoder_512_dpt.pth", NAVER_LICENCE, 2285)),
        (
            "DUSt3R ViT-L, linear head",
            Source(f"{NAVER}/DUSt3R/DUSt3R_ViTLarge_BaseDecoder_512_linear.pth", NAVER_LICENCE, 2129),
        ),
        (
            "DUSt3R ViT-L at 224, linear head",
            Source(f"{NAVER}/DUSt3R/DUSt3R_ViTLarge_BaseDecoder_224_linear.pth", NAVER_LICENCE, 2129),
        ),
        ("MASt3R ViT-L", of_hub("naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric", NAVER_LICENCE, 2754)),
        ("DUSt3R ViT-L", of_hub("naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt", NAVER_LICENCE, 2285)),
        (
            "Splatt3R v1.0",
            Source(f"{HUB}/brandonsmart/splatt3r_v1.0/resolve/main/epoch=19-step=1200.ckpt", SPLATT3R_LICENCE, 3300),
        ),
    )
}


def geometry_file(config: Config) -> tuple[Path, dict]:
    """File of the two-view network that model.geometry selects, and its record.

    raises    FetchError  when it is neither in the repository, nor in weights.root, nor offered by a publisher
    """
    key = f"geometries.{config.model.geometry}.file"
    file = config.geometries[config.model.geometry].file
    if (path := Path(file)).is_file():
        bundled = path.parts[:2] == ("data", "bundled")
        label = f"{config.model.geometry} MASt3R" if bundled else f"{config.model.geometry} ({path.name})"
        about = {
            "weights": "bundled" if bundled else "file",
            "label": label,
            "source": path.as_posix() if bundled else path.name,
            "licence": "Apache-2.0 (this project)" if bundled else "unknown",
        }
    elif file in GEOMETRIES:
        label, source = GEOMETRIES[file]
        remedy = "set model.geometry=tiny for the network that comes with this repository"
        path, about = fetched(source, config, key, remedy)
        about |= {"weights": "pretrained", "label": label}
    elif config.weights.root and (path := Path(config.weights.root) / file).is_file():
        about = {
            "weights": "file",
            "label": f"{config.model.geometry} ({path.name})",
            "source": path.name,
            "licence": "unknown",
        }
    else:
        raise FetchError(
            f"{key} is {file}, which is neither a file of this repository nor one in weights.root "
            f"({config.weights.root or 'not set'}); place it there, or choose one of "
            f"{', '.join(GEOMETRIES)}, or set model.geometry=tiny."
        )
    return path, about | {"name": config.model.geometry, "sha256": about.get("sha256") or file_hash(path)}


def geometry(config: Config, folder: Path) -> None:
    """Our own files are copied as they are; official ones (.pth, .ckpt, the hub's with config.json beside) converted.

    raises    FetchError, CheckpointError  before anything in `folder` changes
    """
    path, record = geometry_file(config)
    if path.suffix == ".safetensors" and not path.with_name("config.json").is_file():
        read_checkpoint(path)
        renew(folder, record)
        shutil.copyfile(path, folder / MODEL_FILE)
    else:
        checkpoint, splatt3r = read_official(path)
        if not any(name.startswith("downstream_head") for name in checkpoint.state_dict):
            raise CheckpointError(
                f"{path} predicts no points (it is CroCo, which MASt3R and DUSt3R started from); set "
                f"model.geometry to {', '.join(config.geometries)}, or name another file in "
                f"geometries.{config.model.geometry}.file."
            )
        renew(folder, record | (asdict(splatt3r) if splatt3r else {}))
        write_geometry(folder / MODEL_FILE, checkpoint.config, checkpoint.state_dict)


WITHOUT = (
    "go on without LPIPS by eval.lpips=none and loss.lpips_loss_weight=0 (in params.yaml, or for one run by "
    "dvc exp run -S eval.lpips=none -S loss.lpips_loss_weight=0)"
)


def lpips(name: str, key: str, config: Config) -> tuple[dict, dict[str, Tensor] | None]:
    """The record of a trunk of LPIPS, and its tensors under torchvision's names, without its classifier; a record alone
    where none is asked for.

    name    alex, vgg, squeeze or none · key  the parameter that says so
    raises  FetchError; CheckpointError when the file is not that network's, to the last name and shape
    """
    record = {"name": "none", "label": "no LPIPS", "weights": "none", "licence": "none needed", "source": "none"}
    if name == "none":
        return record | {"sha256": None}, None
    label, source = TRUNKS[name]
    path, about = fetched(source, config, f"{key}={name}", WITHOUT)
    return {"name": name, "label": f"LPIPS ({label})", "weights": "pretrained"} | about, read_trunk(path, name)


def lpips_weights(config: Config) -> None:
    """The trunk of the loss in lpips_loss, each of the metric in a folder of its name in lpips_eval; a file that both
    want is fetched and read once. Nothing changes unless all can be had."""
    training = config.loss.lpips_network if config.loss.lpips_loss_weight > 0 else "none"
    metrics = config.eval.lpips or ["none"]
    keys = dict.fromkeys(metrics, "eval.lpips") | {training: "loss.lpips_network"}
    found = {name: lpips(name, key, config) for name, key in keys.items()}
    renew(WEIGHTS / "lpips_loss", *found[training])
    shutil.rmtree(WEIGHTS / "lpips_eval", ignore_errors=True)
    for name in metrics:
        renew(WEIGHTS / "lpips_eval" / name, *found[name])


def main(config: Config) -> None:
    fix_computation(config.threads)
    geometry(config, WEIGHTS / "geometry")
    backbone_weights(config, WEIGHTS / "backbone")
    lpips_weights(config)


if __name__ == "__main__":
    run(main, "weights")
