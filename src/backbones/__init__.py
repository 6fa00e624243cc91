"""Frozen networks whose features may be fused in; `python -m src.backbones` lists them."""

from src.backbones.base import Backbone
from src.backbones.registry import FAMILIES, build, known, load

__all__ = ["FAMILIES", "Backbone", "build", "known", "load"]
