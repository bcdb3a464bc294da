"""ACTPolicy against independent, naive computations and the paper's description."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import ResNetConfig, ResNetModel

from menura.errors import ConfigError
from menura.policies.act.configuration_act import ACTPolicyConfig
from menura.policies.act.modeling_act import ACTPolicy, kl_divergence, masked_l1
from menura.policies.act.transformer_act import sine_positions, sine_positions_2d
from menura.policies.check import check_policy
from menura.policies.common.resnet import ResNetBackbone
from menura.policies.contract import build_policy, fill_config

SMALL = {
    "state_dim": 5,
    "action_dim": 3,
    "chunk_size": 6,
    "n_action_steps": 6,
    "hidden_size": 32,
    "feedforward_size": 32,
    "n_heads": 2,
    "n_encoder_layers": 1,
    "latent_dim": 4,
    "backbone_widths": [16, 32],
    "backbone_depths": [1, 1],
}


def small(**args) -> ACTPolicy:
    return ACTPolicy(ACTPolicyConfig(**{**SMALL, **args}))


@pytest.fixture
def pretrained(tmp_path):
    """A tiny ResNet on disk, as the Hub would give one, with statistics of its own."""
    resnet = ResNetModel(ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic"))
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    resnet.save_pretrained(tmp_path / "resnet")
    return resnet, tmp_path / "resnet"


def test_positions_of_a_sequence_are_those_of_attention_is_all_you_need():
    table = sine_positions(7, 8, torch.zeros(1))
    for position in range(7):
        for i in range(4):
            angle = position / 10000 ** (2 * i / 8)
            assert table[position, 2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-6)


def test_positions_of_an_image_are_those_of_detr():
    height, width, dim = 3, 4, 8
    table = sine_positions_2d(height, width, dim, torch.zeros(1))
    assert table.shape == (12, 8)
    for row in range(height):
        for column in range(width):
            expected = []
            for value in ((row + 1) / height, (column + 1) / width):
                for i in range(dim // 4):
                    angle = value * 2 * math.pi / 10000 ** (2 * i / (dim // 2))
                    expected += [math.sin(angle), math.cos(angle)]
            assert table[row * width + column].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_divergence_is_that_of_two_normals():
    mean, log_variance = torch.randn(4, 3), torch.randn(4, 3)
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl_divergence(mean, log_variance), theirs.sum(dim=1).mean())
    assert kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3)) == 0


def test_masked_l1_counts_the_steps_that_are_there():
    predicted, actions = torch.randn(3, 5, 2), torch.randn(3, 5, 2)
    is_pad = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]], dtype=torch.bool)
    total, count = 0.0, 0
    for b in range(3):
        for t in range(5):
            if not is_pad[b, t]:
                total += sum(abs(float(predicted[b, t, a] - actions[b, t, a])) for a in range(2))
                count += 2
    assert float(masked_l1(predicted, actions, is_pad)) == pytest.approx(total / count, rel=1e-6)


def test_the_loss_is_l1_plus_ten_times_the_divergence():
    policy = small()
    batch = {"state": torch.randn(2, 5), "actions": torch.randn(2, 6, 3), "is_pad": torch.zeros(2, 6, dtype=torch.bool)}
    output = policy(**batch)
    assert policy.config.kl_weight == 10
    torch.testing.assert_close(output["loss"], output["l1_loss"] + 10 * output["kl_loss"])


def test_the_style_is_sampled_in_training_and_zero_when_acting():
    policy = small(dropout=0.0)
    batch = {"state": torch.randn(2, 5), "actions": torch.randn(2, 6, 3)}
    assert policy.train()(**batch)["l1_loss"] != policy(**batch)["l1_loss"]
    policy.eval()
    assert policy(**batch)["l1_loss"] == policy(**batch)["l1_loss"]
    zero = torch.zeros(2, 4)
    torch.testing.assert_close(policy.select_action(batch), policy.predict(batch["state"], None, zero))


def test_the_papers_defaults():
    config = ACTPolicyConfig()
    assert (config.chunk_size, config.kl_weight, config.hidden_size, config.n_heads) == (100, 10, 512, 8)
    assert (config.feedforward_size, config.latent_dim, config.dropout) == (3200, 32, 0.1)
    assert (config.backbone_widths, config.backbone_depths) == ([64, 128, 256, 512], [2, 2, 2, 2])
    assert (config.n_encoder_layers, config.backbone_learning_rate) == (4, 1e-5)


@pytest.mark.parametrize("layers", [1, 2, 7])
def test_every_decoder_layer_is_trained(layers):
    policy = small(n_decoder_layers=layers)
    policy(state=torch.randn(2, 5), actions=torch.randn(2, 6, 3))["loss"].backward()
    assert all(parameter.grad.any() for parameter in policy.decoder.parameters())


def test_cameras_pass_the_backbone_as_one_batch():
    policy = small(camera_names=["a", "b"])
    seen = []
    policy.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    policy.predict(torch.randn(2, 5), torch.randn(2, 2, 3, 32, 32))
    assert seen == [(4, 3, 32, 32)]


def test_the_backbone_has_its_own_learning_rate():
    arguments = SimpleNamespace(learning_rate=1e-4, weight_decay=1e-2)
    policy = small(camera_names=["a"], backbone_learning_rate=1e-6)
    rest, backbone = policy.get_optim_groups(arguments)
    assert (rest["lr"], backbone["lr"]) == (1e-4, 1e-6)
    grouped = [id(p) for group in (rest, backbone) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in policy.parameters())
    assert {id(p) for p in backbone["params"]} == {id(p) for p in policy.backbone.parameters()}
    assert len(small().get_optim_groups(arguments)) == 1


def test_a_pretrained_backbone_keeps_its_weights_and_frozen_norms(pretrained):
    resnet, path = pretrained
    policy = small(camera_names=["a"], pretrained_backbone=str(path)).train()
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(policy.backbone(image), resnet.eval()(image).last_hidden_state)
    policy(state=torch.randn(2, 5), image=image[:, None], actions=torch.randn(2, 6, 3))["loss"].backward()
    norms = [module for module in policy.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    for mine, theirs in zip(norms, [m for m in resnet.modules() if isinstance(m, nn.BatchNorm2d)], strict=True):
        assert torch.equal(mine.running_mean, theirs.running_mean)
        assert mine.weight.grad is None
    convolutions = [module for module in policy.backbone.modules() if isinstance(module, nn.Conv2d)]
    assert all(module.weight.grad.any() for module in convolutions)


def test_a_checkpoint_does_not_need_the_pretrained_backbone_any_more(pretrained, tmp_path):
    _, path = pretrained
    policy = small(camera_names=["a"], pretrained_backbone=str(path)).eval()
    nn.init.normal_(policy.backbone.resnet.embedder.embedder.convolution.weight)
    policy.save_pretrained(tmp_path / "saved")
    path.rename(tmp_path / "gone")
    again = ACTPolicy.from_pretrained(tmp_path / "saved").train()
    obs = {"state": torch.randn(2, 5), "image": torch.randn(2, 1, 3, 32, 32)}
    assert not any(m.training for m in again.modules() if isinstance(m, nn.BatchNorm2d))
    assert not any(p.requires_grad for m in again.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    assert torch.equal(again.eval().select_action(obs), policy.select_action(obs))


def test_the_transformers_start_from_glorot_and_the_style_near_its_prior():
    torch.manual_seed(0)
    policy = small(hidden_size=128, feedforward_size=256, latent_dim=32)
    layer = policy.encoder[0]
    attention = layer.attention
    joint = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])  # as DETR draws it
    for weight in (joint, layer.feedforward.layers[0].weight):
        fan_out, fan_in = weight.shape
        assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / (fan_in + fan_out)), rel=0.05)
    assert not any(layer.bias.any() for layer in (attention.q_proj, layer.feedforward.layers[0]))
    assert float(policy(state=torch.randn(64, 5), actions=torch.randn(64, 6, 3))["kl_loss"].detach()) / 32 < 0.5


@pytest.mark.parametrize("training", [False, True])
def test_attention_is_that_of_torch(training):
    torch.manual_seed(0)
    ours = small(dropout=0.0).encoder[0].attention.train(training)
    theirs = nn.MultiheadAttention(32, 2, batch_first=True)
    projections = (ours.q_proj, ours.k_proj, ours.v_proj)
    theirs.in_proj_weight = nn.Parameter(torch.cat([each.weight for each in projections]))
    theirs.out_proj = ours.out_proj
    x, positions, memory = torch.randn(3, 6, 32), torch.randn(6, 32), torch.randn(3, 4, 32)
    is_pad = torch.tensor([[0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    attended = theirs(x + positions, memory + positions[:4], memory, key_padding_mask=is_pad)[0]
    torch.testing.assert_close(ours(x, positions, memory, positions[:4], is_pad), ours.norm(x + attended))


def test_a_random_backbone_has_group_norms():
    policy = small(camera_names=["a"])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in policy.modules())
    assert any(isinstance(module, nn.GroupNorm) for module in policy.modules())


def test_it_runs_without_state(features):
    policy = small(state_dim=0, camera_names=["a"])
    image = torch.randn(2, 1, 3, 32, 32)
    policy(image=image, actions=torch.randn(2, 6, 3))["loss"].backward()
    assert policy.select_action({"image": image}).shape == (2, 6, 3)


def test_what_is_missing_is_said(features):
    policy = build_policy(ACTPolicy, {k: v for k, v in SMALL.items() if not k.endswith("_dim")}, features)
    with pytest.raises(
        ValueError, match=r"expected a state of width 5 and images of \['front', 'wrist'\], got a state"
    ):
        policy.select_action({"state": torch.zeros(1, 5)})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"hidden_size": 30, "n_heads": 4}, "expected hidden_size to be a multiple of n_heads and of 4, got 30 and 4"),
        ({"n_decoder_layers": 0}, "expected n_encoder_layers, n_decoder_layers and latent_dim of at least 1"),
        ({"state_dim": 3, "env_state_dim": 4}, "expected env_state_dim in 0 … state_dim = 3, got 4"),
        ({"activation": "tanh"}, "expected activation to be relu or gelu, got 'tanh'"),
        ({"backbone_block": "wide"}, "expected backbone_block to be one of basic, bottleneck, got 'wide'"),
        ({"backbone_dilated": True}, "expected backbone_dilated with bottleneck blocks alone"),
        ({"backbone_norm": "batch"}, "expected backbone_norm to be group or frozen_batch, got 'batch'"),
        ({"backbone_widths": [16]}, "expected as many backbone_widths as backbone_depths"),
        ({"backbone_widths": [15, 30], "backbone_depths": [1, 1]}, "expected backbone_widths to be multiples of 16"),
    ],
)
def test_wrong_settings_are_refused(args, message):
    with pytest.raises(ConfigError) as error:
        fill_config(ACTPolicyConfig, args)
    assert message in str(error.value)


def test_gradient_checkpointing_changes_the_memory_and_not_the_gradients():
    batch = {"state": torch.randn(2, 5), "actions": torch.randn(2, 6, 3)}
    policy = small(camera_names=[], dropout=0.0)
    gradients, saved = [], []
    for checkpointing in (False, True):
        if checkpointing:
            policy.gradient_checkpointing_enable()
        kept = 0

        def keep(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        policy.zero_grad()
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = policy.train()(**batch)["loss"]
            saved.append(kept)
        loss.backward()
        gradients.append([p.grad.clone() for p in policy.parameters()])
    for ordinary, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(ordinary, checkpointed)
    assert saved[1] < saved[0] / 2


@pytest.mark.parametrize(
    "options",
    [
        {"pre_norm": True, "n_decoder_layers": 2, "activation": "gelu"},
        {"use_vae": False},
        {"state_dim": 5, "env_state_dim": 3, "n_cvae_layers": 1},
        {"state_dim": 3, "env_state_dim": 3},
    ],
)
def test_every_structure_keeps_the_contract(options):
    args = {**SMALL, "camera_names": [], "hidden_size": 16, **options}
    results = check_policy("ACTPolicy", args=args)
    assert [result.message for result in results if not result.ok] == []


def test_a_dilated_backbone_keeps_the_resolution():
    sizes = {"widths": (64, 128), "depths": (1, 2), "block": "bottleneck"}
    plain, dilated = (ResNetBackbone(**sizes, dilated=dilated) for dilated in (False, True))
    image = torch.rand(1, 3, 32, 32)
    assert plain(image).shape == (1, 128, 4, 4)
    assert dilated(image).shape == (1, 128, 8, 8)
