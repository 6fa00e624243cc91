"""Splatt3R: the two-view network with a Gaussian head beside its point head, and a backbone's features fused in.

Smart et al. 2024, Splatt3R: Zero-shot Gaussian Splatting from Uncalibrated Image Pairs (arXiv 2408.13912). Two
images without poses become one Gaussian per pixel, all in view 1's camera frame, in the geometry network's units.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from src.mast3r.attention import Grid
from src.mast3r.network import Mast3r, Mast3rConfig, PixelHead, PointMap, with_aliases
from src.splatt3r.choices import SH_DEGREES, STRATEGIES
from src.splatt3r.fusion import FusionAdapter, FusionConfig, inner_width, resize_features
from src.splatt3r.gaussian_head import OFFICIAL_OPACITY, OFFICIAL_SCALE, GaussianHead, Limits, activate
from src.splatting.gaussians import Gaussians

GROUPS = {  # parameter groups by the start of their names; what is in none (mask_token) is never used
    "encoder": ("patch_embed.", "enc_blocks.", "enc_norm."),
    "decoder": ("decoder_embed.", "dec_blocks.", "dec_blocks2.", "dec_norm."),
    "gaussian_head": ("downstream_head1.gaussian_dpt.", "downstream_head2.gaussian_dpt."),
    "point_head": ("downstream_head1.", "downstream_head2."),
    "fusion": ("fusion.",),
}
# No loss reaches these: the coarsest refinement has no skip connection to process, and nothing reads descriptors.
UNREACHED = ("refinenet4.resConfUnit1.", "head_local_features.")


@dataclass(frozen=True)
class SplatOutput:
    """Gaussians with batch dimension, (B, 2 H W): view 1's pixels row by row, then view 2's, in view 1's camera frame;
    points1, points2: the point head's output of each view, in the same frame."""

    gaussians: Gaussians
    points1: PointMap
    points2: PointMap


class Splatt3R(Mast3r):
    """The two-view network, a Gaussian head per view, and one fusion adapter per fused token map.

    State-dict keys are the official Splatt3R's, plus `fusion.*` when features are fused. A new model is frozen as
    strategy feature_extraction says. The Gaussian heads' initial values depend on the generator alone, not on `fusion`.

    sh_degree    0 to 3, of the Gaussians' colours
    initial_scale, initial_opacity  of the untrained heads' Gaussians; by default the official ones, made for 512 pixels
    limits       of the Gaussians' sizes and offsets; by default none, as published
    use_offsets  whether Gaussians may leave their pixel's point
    fusion       None = no features are fused
    generator    draws the initial values of the Gaussian heads, then of the adapters
    raises       ValueError when a fusion hook is not one that the heads read, or no adapter has fusion.parameters
    """

    def __init__(
        self,
        mast3r: Mast3rConfig,
        sh_degree: int = 0,
        use_offsets: bool = True,
        fusion: FusionConfig | None = None,
        *,
        generator: torch.Generator,
        initial_scale: float = OFFICIAL_SCALE,
        initial_opacity: float = OFFICIAL_OPACITY,
        limits: Limits | None = None,
    ):
        super().__init__(mast3r)
        self.limits = limits or Limits()
        if sh_degree not in SH_DEGREES:
            raise ValueError(f"model.sh_degree is {sh_degree}; choose one of {', '.join(map(str, SH_DEGREES))}.")
        self.use_offsets, self.fusion_config, self.head_loaded = use_offsets, fusion, False
        for head in (self.downstream_head1, self.downstream_head2):
            head.gaussian_dpt = GaussianHead(mast3r, sh_degree, generator, initial_scale, initial_opacity)
        if fusion is not None:
            sites = fusion_sites(mast3r, fusion)
            inner = inner_width(fusion, list(sites.values()))
            self.fusion = nn.ModuleDict(
                {
                    site: FusionAdapter(
                        fusion.channels, width, None, fusion.mode, fusion.identity_init, generator, inner
                    )
                    for site, width in sites.items()
                }
            )
        self.apply_strategy("feature_extraction")

    def forward(
        self,
        tokens1: Tensor,
        tokens2: Tensor,
        images1: Tensor,
        images2: Tensor,
        features1: Tensor | None = None,
        features2: Tensor | None = None,
    ) -> SplatOutput:
        """Gaussians of a batch of image pairs.

        tokens1, tokens2     (B, N, E)       `encode(2 * images - 1)`, computed now or cached
        images1, images2     (B, 3, H, W)    in [0, 1]; sides multiples of 16
        features1, features2 (B, C, gh, gw)  of the backbone, on any grid; None exactly when nothing is fused
        raises               ValueError      when features are missing, unexpected or of the wrong width, or when the
                             encoder is trained but the tokens carry no gradient
        """
        self._check(tokens1, tokens2, features1, features2)
        grid1, grid2 = self.grid(images1), self.grid(images2)  # (h, w)
        # 1. At site `encoder` the features join the encoder tokens: all that follows sees them.
        tokens1 = self._fuse("encoder", tokens1, features1, grid1)  # (B, N, E)
        tokens2 = self._fuse("encoder", tokens2, features2, grid2)
        # 2. The decoder lets each view look at the other; a list holds encoder tokens and every block's output.
        # Frozen parts keep no activations, unless a gradient must pass through them to what is trained before them.
        track = torch.is_grad_enabled()
        through_decoder = "decoder" in self.trained_groups or tokens1.requires_grad or tokens2.requires_grad
        with torch.set_grad_enabled(track and through_decoder):
            list1, list2 = self.decode(tokens1, tokens2, grid1, grid2)  # dec_depth + 1 entries (B, N, C)
        # 3. The point heads say where each pixel's surface lies, in view 1's camera frame.
        with torch.set_grad_enabled(track and "point_head" in self.trained_groups):
            points1 = self._points(self.downstream_head1, list1, grid1)  # pts3d (B, H, W, 3)
            points2 = self._points(self.downstream_head2, list2, grid2)
        # 4. The Gaussian heads put one Gaussian on each point; at site `head` they alone see the features.
        gaussians1 = self._gaussians(self.downstream_head1, list1, points1, images1, features1, grid1)
        gaussians2 = self._gaussians(self.downstream_head2, list2, points2, images2, features2, grid2)
        # 5. Both views' Gaussians are one set.  (B, 2 H W)
        return SplatOutput(Gaussians.cat([gaussians1, gaussians2]), points1, points2)

    @property
    def encoder_trainable(self) -> bool:
        """Whether tokens must be computed anew each step instead of read from a cache."""
        return "encoder" in self.trained_groups

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """Group -> name -> parameter; point_head has the descriptors too, fusion is the adapters."""
        groups: dict[str, dict[str, nn.Parameter]] = {group: {} for group in GROUPS}
        for name, parameter in self.named_parameters():
            group = next((g for g, starts in GROUPS.items() if name.startswith(starts)), None)
            if group is not None:
                groups[group][name] = parameter
        return groups

    def apply_strategy(
        self,
        strategy: str = "feature_extraction",
        *,
        freeze_encoder: bool | None = None,
        freeze_decoder: bool | None = None,
        freeze_fusion: bool | None = None,
        freeze_gaussian_head: bool = False,
        train_points: bool = False,
    ) -> None:
        """Set requires_grad of every parameter.

            strategy            trains
            feature_extraction  adapters, Gaussian heads              (without an adapter: the Splatt3R baseline)
            fusion_finetune     adapters, Gaussian heads, decoder
            full_finetune       adapters, Gaussian heads, decoder, encoder

        A flag that is not None overrides the strategy. `train_points` is for a loss on the point maps, which rendering
        never trains. The mask token, the coarsest refinements' unused units and the descriptor MLPs stay frozen: no
        loss reaches them.

        raises ValueError for an unknown strategy and for combinations that cannot be trained
        """
        if strategy not in STRATEGIES:
            raise ValueError(f"model.strategy is {strategy!r}; choose one of {', '.join(STRATEGIES)}.")
        frozen = dict(STRATEGIES[strategy])
        flags = {"freeze_encoder": freeze_encoder, "freeze_decoder": freeze_decoder}
        frozen |= {flag: value for flag, value in flags.items() if value is not None}
        fused = self.fusion_config is not None
        if freeze_gaussian_head and not self.head_loaded:
            raise ValueError(
                "freeze_gaussian_head is true, but these geometry weights hold no Gaussian head, which "
                "must then be trained; set it to false or start from a Splatt3R checkpoint."
            )
        if freeze_fusion and fused and self.fusion_config.identity_init:
            raise ValueError(
                "model.freeze_fusion is true, but with model.identity_init an untrained adapter ignores "
                "the backbone: the baseline under another name; set freeze_fusion to false or empty."
            )
        trained = {
            "encoder": not frozen["freeze_encoder"],
            "decoder": not frozen["freeze_decoder"],
            "gaussian_head": not freeze_gaussian_head,
            "point_head": train_points,
            "fusion": fused and not freeze_fusion,
        }
        if not any(trained.values()):
            raise ValueError(
                "Every part of the model is frozen, so there is nothing to train; unfreeze one of "
                "freeze_encoder, freeze_decoder, freeze_fusion and freeze_gaussian_head."
            )
        self.requires_grad_(False)
        for group, parameters in self.reached_parameters().items():
            for parameter in parameters.values():
                parameter.requires_grad_(trained[group])
        self.trained_groups = frozenset(group for group, value in trained.items() if value)

    def reached_parameters(self) -> dict[str, dict[str, nn.Parameter]]:
        """`parameter_groups` without those that no loss can train."""
        return {
            group: {name: p for name, p in parameters.items() if not any(part in name for part in UNREACHED)}
            for group, parameters in self.parameter_groups().items()
        }

    def load_geometry(self, state: Mapping[str, Tensor]) -> None:
        """Load the two-view network's weights, strictly; a Splatt3R checkpoint's Gaussian heads too, where it has them.

        raises ValueError when a tensor is missing, unexpected or of another shape
        """
        state = with_aliases(state)
        own = {name for name in self.state_dict() if not name.startswith(("fusion.", "readout."))}
        heads = {name for name in own if name.startswith(GROUPS["gaussian_head"])}
        wanted = own if heads & state.keys() else own - heads
        self._load(state, wanted, "the geometry network's weights")
        self.head_loaded = wanted == own

    def start_from_points(self) -> None:
        """Let the Gaussian heads start from the point heads' layers.

        raises ValueError when the point heads are linear, and so have no such layers
        """
        if self.config.head == "linear":
            raise ValueError(
                "geometries.<name>.initial_head is points, but this geometry network's point heads are linear "
                "and have no layers that a Gaussian head could start from; set it to drawn."
            )
        for head in (self.downstream_head1, self.downstream_head2):
            head.gaussian_dpt.start_from(head.dpt)

    def load_gaussian_head(self, state: Mapping[str, Tensor]) -> None:
        """Load the Gaussian heads that training reaches from what `trained_state_dict` returned of another model.

        raises ValueError when a tensor is missing, unexpected or of another shape
        """
        heads = {name: x for name, x in state.items() if name.startswith(GROUPS["gaussian_head"])}
        self._load(heads, set(self.reached_parameters()["gaussian_head"]), "the trained Gaussian head's weights")

    def _load(self, state: Mapping[str, Tensor], wanted: set[str], what: str) -> None:
        """Copy exactly the tensors `wanted` from `state`; ValueError when it holds others, or of other shapes."""
        own = self.state_dict()
        missing, unknown = sorted(wanted - state.keys()), sorted(state.keys() - wanted)
        if missing or unknown:
            raise ValueError(
                f"{what} do not fit the model: {_some(missing)} missing, {_some(unknown)} unexpected; the "
                "model's parameters have changed since they were written."
            )
        wrong = sorted(name for name in wanted if own[name].shape != state[name].shape)
        if wrong:
            raise ValueError(
                f"{what} do not fit the model: {wrong[0]} is {tuple(state[wrong[0]].shape)} and must be "
                f"{tuple(own[wrong[0]].shape)}."
            )
        self.load_state_dict({name: state[name] for name in wanted}, strict=False)

    def _fuse(self, site: str, tokens: Tensor, features: Tensor | None, grid: Grid) -> Tensor:
        """Tokens (B, N, C) joined with features by the adapter of `site`; unchanged where there is none. float32."""
        tokens = tokens.float()
        if self.fusion_config is None or site not in self.fusion:
            return tokens
        with torch.autocast(tokens.device.type, enabled=False):
            token_map = tokens.mT.unflatten(-1, grid)
            fused = self.fusion[site](token_map, resize_features(features.float(), grid))
        return fused.flatten(2).mT.contiguous()

    def _points(self, head: PixelHead, tokens: list[Tensor], grid: Grid) -> PointMap:
        """Points and confidence of one view as `Mast3r.head` has them, without descriptors: nothing here reads those."""
        with self._head_precision(tokens[0]):
            tokens = [x.float() for x in tokens]
            if self.config.head == "linear":
                return head(tokens, grid).map(Tensor.float)
            return PointMap.activate(head.dpt([tokens[hook] for hook in self.config.hooks], grid).float())

    def _gaussians(
        self,
        head: PixelHead,
        tokens: list[Tensor],
        points: PointMap,
        images: Tensor,
        features: Tensor | None,
        grid: Grid,
    ) -> Gaussians:
        """Gaussians of one view; fused tokens are shown to the Gaussian head alone."""
        raw = self._raw_gaussians(head, tokens, images, features, grid)
        with torch.autocast(images.device.type, enabled=False):
            return activate(raw, points.pts3d, images, self.use_offsets, self.limits)

    def _raw_gaussians(
        self, head: PixelHead, tokens: list[Tensor], images: Tensor, features: Tensor | None, grid: Grid
    ) -> Tensor:
        """The Gaussian head's channels of one view, as `activate` takes them."""
        hooked = [self._fuse(str(hook), tokens[hook], features, grid) for hook in self.config.hooks]
        with self._head_precision(images):
            return self.run(head.gaussian_dpt.dpt, hooked, grid).float()

    def _head_precision(self, like: Tensor) -> torch.autocast:
        """float32 for the heads, unless they are told to follow the caller's autocast region."""
        kind = like.device.type
        return torch.autocast(kind, enabled=self.heads_in_autocast and torch.is_autocast_enabled(kind))

    def _check(self, tokens1: Tensor, tokens2: Tensor, *features: Tensor | None) -> None:
        for feature in features:
            if (feature is None) != (self.fusion_config is None):
                found = "none" if feature is None else "some"
                wanted = "no" if self.fusion_config is None else f"{self.fusion_config.channels}-channel"
                raise ValueError(
                    f"The model expects {wanted} backbone features and got {found}; make model.backbone "
                    "agree with the model, then run the stages extract and train."
                )
            if feature is not None and feature.shape[1] != self.fusion_config.channels:
                raise ValueError(
                    f"The backbone's features have {feature.shape[1]} channels, the model was built for "
                    f"{self.fusion_config.channels}; set model.dinov2_dim to the backbone's width or leave "
                    "it empty, and train again."
                )
        learning = torch.is_grad_enabled() and self.training and self.encoder_trainable
        if learning and not (tokens1.requires_grad and tokens2.requires_grad):
            raise ValueError(
                "The encoder is to be trained (model.freeze_encoder: false), but its tokens carry no "
                "gradient; compute them with encode instead of reading them from the cache."
            )


def fusion_sites(mast3r: Mast3rConfig, fusion: FusionConfig) -> dict[str, int]:
    """Where an adapter goes and the width of the tokens there: "encoder", or the number of each fused token map."""
    if fusion.site == "encoder":
        return {"encoder": mast3r.enc_embed_dim}
    allowed = mast3r.hooks[1:]
    hooks = allowed[-1:] if fusion.hooks is None else tuple(fusion.hooks)
    if not hooks or len(set(hooks)) != len(hooks) or not set(hooks) <= set(allowed):
        raise ValueError(
            f"model.fusion_hooks is {list(hooks)}; choose different ones of {list(allowed)}, the token "
            "maps that this geometry network's heads read, or leave it empty for the last."
        )
    return {str(hook): mast3r.dec_embed_dim for hook in sorted(hooks)}


def trained_state_dict(model: Splatt3R) -> dict[str, Tensor]:
    """Copies, on the CPU, of the parameters that the model's strategy trains, and of a readout's solution, ready for
    safetensors."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad} | dict(model.named_buffers())
    return {name: x.detach().cpu().clone(memory_format=torch.contiguous_format) for name, x in trained.items()}


def load_trained(model: Splatt3R, state: Mapping[str, Tensor]) -> None:
    """Load what `trained_state_dict` returned, on top of the same geometry weights.

    raises ValueError unless `state` holds whole groups, with the adapters if there are any, and the Gaussian heads
           unless those came with the geometry weights
    """
    groups = {group: set(parameters) for group, parameters in model.reached_parameters().items() if parameters}
    required = {"fusion"} & groups.keys() | (set() if model.head_loaded else {"gaussian_head"})
    present = {group for group, names in groups.items() if names & state.keys()} | required
    solutions = {name for name, _ in model.named_buffers()}
    model._load(state, solutions.union(*(groups[group] for group in present)), "the trained weights")


def _some(names: list[str]) -> str:
    return f"{len(names)} ({names[0]}, ...)" if len(names) > 1 else names[0] if names else "none"
