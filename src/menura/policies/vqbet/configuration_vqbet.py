"""Settings of `VQBeTPolicy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

from ..common.resnet import check_resnet


class VQBeTPolicyConfig(PretrainedConfig):
    """Settings of `VQBeTPolicy`; defaults of LeRobot 0.6.1's `vqbet`, which implements Lee et al. 2024 (arXiv
    2403.03181) with settings for PushT, unless said otherwise.

    LeRobot trains with Adam, learning rate 1e-4, betas (0.95, 0.999), weight decay 1e-6, 500 steps of warmup, batch
    size 64 and 250 000 steps, the first 20 000 of them on the codes alone.

    Args:
        state_dim: width of the state, 0 for none; filled in from the data.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order; filled in from the data. None or empty: state alone.
        image_size: (height, width) in pixels.
        crop_shape: (height, width) of what is seen of an image, its centre; None: all of it.
        crop_is_random: in training, what is seen is at a place drawn for each image.
        image_normalize: how pixels are normalized.
        n_obs_steps: observations given, newest last.
        chunk_size: actions predicted, which together are one entry of the codebooks.
        n_action_steps: actions executed before predicting again, at most `chunk_size`.
        n_predicted_chunks: chunks that are learnt from the newest observation: the one that begins now, which alone is
            answered, and those that begin one step later and so on. A chunk is learnt from each older one, too.
        codebook_size: entries of each codebook.
        n_codebooks: codebooks, each of which encodes what those before it left over.
        code_dim: width of an entry.
        vqvae_hidden_size: width of the networks that encode and decode chunks.
        n_vqvae_steps: training batches from which the codes are learnt; then they stay as they are. The transformer
            learns all the time.
        vqvae_learning_rate: of the codes; None for the same as the rest.
        vqvae_weight_decay: of the codes.
        hidden_size: width of the transformer.
        n_layers: layers of the transformer.
        n_heads: attention heads.
        dropout: share dropped in the transformer in training, in [0, 1).
        sequential_codes: predict each code given the one before it, instead of all at once. Of two codebooks.
        code_loss_weights: of each codebook's code in the loss.
        offset_loss_weight: of the L1 distance of the actions in the loss.
        code_temperature: of the probabilities from which codes are drawn, in training and acting.
        n_keypoints: image points that are looked for in each image, by spatial softmax.
        backbone_widths: feature maps of the ResNet's four stages; the default with `backbone_depths` is ResNet-18.
        backbone_depths: blocks of each stage.
        backbone_block: `basic` (ResNet-18 and -34) or `bottleneck` (ResNet-50 and larger).
        backbone_norm: `group`, `batch` or `frozen_batch`. None: `group` for random weights (LeRobot: `batch`, where the
            rows of a training batch depend on one another), `frozen_batch` for pretrained ones.
        pretrained_backbone: a Hub id or a directory of a `transformers` ResNet with these widths and depths, such as
            `microsoft/resnet-18`, which LeRobot starts from; None starts from random weights. It is read when a policy
            is made for training, never when a checkpoint is loaded.
    """

    model_type = "menura_vqbet"

    def __init__(
        self,
        state_dim: int = 2,
        action_dim: int = 2,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (96, 96),
        crop_shape: Sequence[int] | None = (84, 84),
        crop_is_random: bool = True,
        image_normalize: str = "minus_one_one",
        n_obs_steps: int = 5,
        chunk_size: int = 5,
        n_action_steps: int = 5,
        n_predicted_chunks: int = 3,
        codebook_size: int = 16,
        n_codebooks: int = 2,
        code_dim: int = 256,
        vqvae_hidden_size: int = 128,
        n_vqvae_steps: int = 20_000,
        vqvae_learning_rate: float | None = 1e-3,
        vqvae_weight_decay: float = 1e-4,
        hidden_size: int = 512,
        n_layers: int = 8,
        n_heads: int = 8,
        dropout: float = 0.1,
        sequential_codes: bool = False,
        code_loss_weights: Sequence[float] = (5.0, 0.5),
        offset_loss_weight: float = 10_000.0,
        code_temperature: float = 0.1,
        n_keypoints: int = 32,
        backbone_widths: Sequence[int] = (64, 128, 256, 512),
        backbone_depths: Sequence[int] = (2, 2, 2, 2),
        backbone_block: str = "basic",
        backbone_norm: str | None = None,
        pretrained_backbone: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if hidden_size % n_heads:
            raise ValueError(f"expected hidden_size to be a multiple of n_heads, got {hidden_size} and {n_heads}")
        if min(n_predicted_chunks, codebook_size, n_codebooks, code_dim, n_layers) < 1:
            raise ValueError(
                "expected n_predicted_chunks, codebook_size, n_codebooks, code_dim and n_layers of at least 1"
            )
        if len(code_loss_weights) != n_codebooks:
            raise ValueError(f"expected n_codebooks = {n_codebooks} code_loss_weights, got {list(code_loss_weights)}")
        if sequential_codes and n_codebooks != 2:
            raise ValueError(f"expected n_codebooks of 2 with sequential_codes, got {n_codebooks}")
        if code_temperature <= 0:
            raise ValueError(f"expected a code_temperature above 0, got {code_temperature}")
        if not state_dim and not camera_names:
            raise ValueError("expected a state_dim above 0 or a camera in camera_names, got neither")
        if camera_names and crop_shape is not None:
            height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
            if crop_shape[0] > height or crop_shape[1] > width:
                raise ValueError(f"expected a crop_shape within image_size {image_size}, got {list(crop_shape)}")
        if backbone_norm is None:
            backbone_norm = "group" if pretrained_backbone is None else "frozen_batch"
        check_resnet(backbone_widths, backbone_depths, backbone_norm, pretrained_backbone, backbone_block)
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = image_size if isinstance(image_size, int) else list(image_size)
        self.crop_shape = None if crop_shape is None else list(crop_shape)
        self.crop_is_random = crop_is_random
        self.image_normalize = image_normalize
        self.n_obs_steps = n_obs_steps
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.n_predicted_chunks = n_predicted_chunks
        self.codebook_size = codebook_size
        self.n_codebooks = n_codebooks
        self.code_dim = code_dim
        self.vqvae_hidden_size = vqvae_hidden_size
        self.n_vqvae_steps = n_vqvae_steps
        self.vqvae_learning_rate = vqvae_learning_rate
        self.vqvae_weight_decay = vqvae_weight_decay
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.dropout = dropout
        self.sequential_codes = sequential_codes
        self.code_loss_weights = list(code_loss_weights)
        self.offset_loss_weight = offset_loss_weight
        self.code_temperature = code_temperature
        self.n_keypoints = n_keypoints
        self.backbone_widths = list(backbone_widths)
        self.backbone_depths = list(backbone_depths)
        self.backbone_block = backbone_block
        self.backbone_norm = backbone_norm
        self.pretrained_backbone = pretrained_backbone

    @property
    def action_offsets(self) -> list[int]:
        """Actions in training, as frames relative to now: a chunk begins at every observation, and at some later."""
        return list(range(1 - self.n_obs_steps, self.n_predicted_chunks + self.chunk_size - 1))
