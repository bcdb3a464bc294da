"""Settings of `FlowPolicy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig

#: ResNet-18 (He et al. 2016, arXiv 1512.03385).
RESNET_18 = {
    "model_type": "resnet",
    "embedding_size": 64,
    "hidden_sizes": [64, 128, 256, 512],
    "depths": [2, 2, 2, 2],
    "layer_type": "basic",
}


class FlowPolicyConfig(PretrainedConfig):
    """Settings of `FlowPolicy`: flow matching (Lipman et al. 2023, arXiv 2210.02747) over a DiT-S (Peebles & Xie 2023,
    arXiv 2212.09748, table 1: width 384, 6 heads; 8 of its 12 layers).

    Train it with AdamW, a learning rate of 1e-4 to 1e-3 (the smaller the larger the network), a cosine schedule, and a
    moving average of the weights (`training.ema`).

    Args:
        state_dim: width of the state, 0 for none; filled in from the data.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order; filled in from the data. None or empty: no images.
        image_size: (height, width) in pixels.
        image_normalize: how pixels are normalized; `imagenet` is what most pretrained vision models expect.
        image_feature_dim: of all cameras together, where the task has an image encoder, whose features then take the
            place of pixels; filled in.
        chunk_size: actions predicted, 16 as in diffusion policy (Chi et al. 2023, arXiv 2303.04137, table VI).
        n_action_steps: actions executed before predicting again, 8 there.
        n_obs_steps: observations given.
        hidden_size: width of the transformer.
        n_layers: of the transformer.
        n_heads: attention heads.
        patch_size: actions that make one token of the transformer, a divisor of `chunk_size`. Larger is cheaper.
        dropout: share dropped in the transformer in training, in [0, 1).
        time_sampling: times to train at: `uniform`, `beta` (more of them near noise, where it is decided what to do:
            π0, arXiv 2410.24164, appendix B) or `logit_normal` (more in the middle: arXiv 2403.03206).
        n_inference_steps: evaluations of the transformer for a chunk; of adaptive steps the most. None: 10, as in π0,
            or 50 of adaptive ones.
        solver: `euler`, equal steps; or `adaptive`, steps as long as `tolerance` allows: a known accuracy, where that
            matters, and as a rule no fewer evaluations than as accurate equal steps.
        tolerance: of adaptive steps: error of one step, as a root mean square, in normalized units.
        backbone: the vision model trained with the policy, from random weights: settings of a `transformers` config,
            `model_type` among them. None: ResNet-18.
        pretrained_backbone: instead of `backbone`, a Hub id or a directory, such as `microsoft/resnet-18`. It is read
            when a policy is made for training; the policy's own config then has its settings as `backbone` in place of
            the name, so that a checkpoint needs nothing else.
        backbone_norm: what becomes of the backbone's batch norms: `frozen_batch`, kept as they are, or `group`, group
            norms in their place. None: `frozen_batch` for pretrained weights, `group` for random ones.
        text_encoder: the text model that reads the task, frozen: a Hub id or directory, such as
            `sentence-transformers/all-MiniLM-L6-v2`, for which settings are put likewise; or settings; None: the task
            is not read.
        tokenizer: of the text encoder: `bytes`, a Hub id or a directory; None: where the text encoder is from.
        tokenizer_max_length: tokens of a task that are read.
    """

    model_type = "menura_flow"

    def __init__(
        self,
        state_dim: int = 14,
        action_dim: int = 14,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (224, 224),
        image_normalize: str = "imagenet",
        image_feature_dim: int | None = None,
        chunk_size: int = 16,
        n_action_steps: int = 8,
        n_obs_steps: int = 1,
        hidden_size: int = 384,
        n_layers: int = 8,
        n_heads: int = 6,
        patch_size: int = 1,
        dropout: float = 0.1,
        time_sampling: str = "beta",
        n_inference_steps: int | None = None,
        solver: str = "euler",
        tolerance: float = 0.01,
        backbone: Mapping[str, Any] | None = None,
        pretrained_backbone: str | None = None,
        backbone_norm: str | None = None,
        text_encoder: str | Mapping[str, Any] | None = None,
        tokenizer: str | None = None,
        tokenizer_max_length: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if hidden_size % n_heads or hidden_size // n_heads % 2:
            raise ValueError(f"expected hidden_size / n_heads to be even, got {hidden_size} and {n_heads}")
        if chunk_size % patch_size:
            raise ValueError(f"expected chunk_size to be a multiple of patch_size, got {chunk_size} and {patch_size}")
        if solver not in ("euler", "adaptive"):
            raise ValueError(f"expected solver to be euler or adaptive, got {solver!r}")
        if n_inference_steps is None:
            n_inference_steps = 50 if solver == "adaptive" else 10
        if n_inference_steps < (2 if solver == "adaptive" else 1):
            raise ValueError(f"expected n_inference_steps of at least 1, or 2 if adaptive, got {n_inference_steps}")
        if backbone is not None and pretrained_backbone is not None:
            raise ValueError(f"expected a backbone or a pretrained_backbone, got both: {pretrained_backbone!r}")
        if text_encoder is not None and tokenizer is None:
            if not isinstance(text_encoder, str):
                raise ValueError("expected a tokenizer beside the settings of a text_encoder, got none")
            tokenizer = text_encoder
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = image_size if isinstance(image_size, int) else list(image_size)
        self.image_normalize = image_normalize
        self.image_feature_dim = image_feature_dim
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.n_obs_steps = n_obs_steps
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.patch_size = patch_size
        self.dropout = dropout
        self.time_sampling = time_sampling
        self.n_inference_steps = n_inference_steps
        self.solver = solver
        self.tolerance = tolerance
        self.backbone = RESNET_18 if backbone is None and pretrained_backbone is None else backbone
        self.pretrained_backbone = pretrained_backbone
        self.backbone_norm = backbone_norm or ("group" if pretrained_backbone is None else "frozen_batch")
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.tokenizer_max_length = tokenizer_max_length
