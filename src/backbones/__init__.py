"""Frozen networks whose features may be fused in; `python -m src.backbones` lists them."""

from src.backbones.registry import FAMILIES, build_backbone, known, load_backbone

__all__ = ["FAMILIES", "build_backbone", "known", "load_backbone"]
