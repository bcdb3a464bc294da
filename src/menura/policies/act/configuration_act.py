"""Settings of `ACTPolicy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

from ..common.resnet import check_resnet, independent_norm


class ACTPolicyConfig(PretrainedConfig):
    """Settings of `ACTPolicy`; defaults of Zhao et al. 2023 (arXiv 2304.13705, table III) unless said otherwise.

    The paper trains with AdamW, batch size 8, learning rate 1e-5 (backbone too), weight decay 1e-4; 2000 epochs and
    more (README of the authors' code). On state alone, or with a small network, 1e-4 and larger batches do.

    Args:
        state_dim: width of the state, 0 for none; filled in from the data.
        env_state_dim: how many of its last dimensions tell of the environment (poses of objects) and not of the robot:
            they are a token of their own, which the CVAE's encoder does not see. As LeRobot has it; not in the paper.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order; filled in from the data. None or empty: state alone.
        image_size: (height, width) in pixels.
        image_normalize: how pixels are normalized; `imagenet` is what a pretrained backbone expects.
        chunk_size: actions predicted.
        n_action_steps: actions executed before predicting again, at most `chunk_size`. The paper predicts at every
            step and averages (temporal ensembling), which is a choice of the evaluation here.
        hidden_size: width of the transformers.
        n_heads: attention heads.
        feedforward_size: width of the transformers' feed-forward layers.
        n_encoder_layers: layers of the transformer encoder.
        n_cvae_layers: layers of the CVAE's encoder; None for as many as `n_encoder_layers`.
        n_decoder_layers: layers of the transformer decoder. The paper says 7, but its code takes the output of the
            *first* (`detr_vae.py`: `self.transformer(...)[0]`, a stack of every layer's output), so the other six
            were never trained and 1 is what the published results were obtained with. Here the last layer's output
            is used and every layer is trained.
        pre_norm: normalize before attention and feed-forward layers (Xiong et al. 2020, arXiv 2002.04745) instead of
            after them, as the paper does.
        activation: of the feed-forward layers: `relu`, as in the paper, or `gelu`.
        dropout: share dropped in the transformers in training, in [0, 1).
        use_vae: train with the CVAE; without it z is always 0, and the loss is the L1 alone (the paper's ablation).
        latent_dim: width of the CVAE's style variable z.
        kl_weight: weight of the divergence of z from a standard normal (the paper's beta).
        backbone_widths: feature maps of the ResNet's four stages; the default with `backbone_depths` is ResNet-18.
        backbone_depths: blocks of each stage.
        backbone_block: `basic` (ResNet-18 and -34) or `bottleneck` (ResNet-50 and larger).
        backbone_dilated: the last stage keeps the resolution by dilation in place of its stride; bottleneck alone.
        pretrained_backbone: a Hub id or a directory of a `transformers` ResNet with these widths and depths, such as
            `microsoft/resnet-18`, to start from as the paper does; None starts from random weights. It is read when
            a policy is made for training, never when a checkpoint is loaded.
        backbone_norm: `frozen_batch`: the backbone's batch norms keep their statistics and scales, as in the paper;
            `group`: group norms of 16 channels instead. None: `frozen_batch` for a pretrained backbone, `group` for a
            random one, whose frozen batch norms would normalize nothing.
        backbone_learning_rate: of the backbone; None for the same as the rest.
    """

    model_type = "menura_act"

    def __init__(
        self,
        state_dim: int = 14,
        env_state_dim: int = 0,
        action_dim: int = 14,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (480, 640),
        image_normalize: str = "imagenet",
        chunk_size: int = 100,
        n_action_steps: int = 100,
        hidden_size: int = 512,
        n_heads: int = 8,
        feedforward_size: int = 3200,
        n_encoder_layers: int = 4,
        n_cvae_layers: int | None = None,
        n_decoder_layers: int = 1,
        pre_norm: bool = False,
        activation: str = "relu",
        dropout: float = 0.1,
        use_vae: bool = True,
        latent_dim: int = 32,
        kl_weight: float = 10.0,
        backbone_widths: Sequence[int] = (64, 128, 256, 512),
        backbone_depths: Sequence[int] = (2, 2, 2, 2),
        backbone_block: str = "basic",
        backbone_dilated: bool = False,
        pretrained_backbone: str | None = None,
        backbone_norm: str | None = None,
        backbone_learning_rate: float | None = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if hidden_size % n_heads or hidden_size % 4:
            raise ValueError(
                f"expected hidden_size to be a multiple of n_heads and of 4, got {hidden_size} and {n_heads}"
            )
        if min(n_encoder_layers, n_decoder_layers, latent_dim) < 1:
            raise ValueError("expected n_encoder_layers, n_decoder_layers and latent_dim of at least 1")
        if not 0 <= env_state_dim <= state_dim:
            raise ValueError(f"expected env_state_dim in 0 … state_dim = {state_dim}, got {env_state_dim}")
        if activation not in ("relu", "gelu"):
            raise ValueError(f"expected activation to be relu or gelu, got {activation!r}")
        backbone_norm = independent_norm(backbone_norm, pretrained_backbone)
        check_resnet(
            backbone_widths, backbone_depths, backbone_norm, pretrained_backbone, backbone_block, backbone_dilated
        )
        self.state_dim = state_dim
        self.env_state_dim = env_state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = image_size if isinstance(image_size, int) else list(image_size)
        self.image_normalize = image_normalize
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.hidden_size = hidden_size
        self.n_heads = n_heads
        self.feedforward_size = feedforward_size
        self.n_encoder_layers = n_encoder_layers
        self.n_cvae_layers = n_encoder_layers if n_cvae_layers is None else n_cvae_layers
        self.n_decoder_layers = n_decoder_layers
        self.pre_norm = pre_norm
        self.activation = activation
        self.dropout = dropout
        self.use_vae = use_vae
        self.latent_dim = latent_dim
        self.kl_weight = kl_weight
        self.backbone_widths = list(backbone_widths)
        self.backbone_depths = list(backbone_depths)
        self.backbone_block = backbone_block
        self.backbone_dilated = backbone_dilated
        self.pretrained_backbone = pretrained_backbone
        self.backbone_norm = backbone_norm
        self.backbone_learning_rate = backbone_learning_rate
