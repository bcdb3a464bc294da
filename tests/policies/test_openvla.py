"""openvla: its tokens, who sees whom, each of its heads, and the original weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDIMScheduler
from safetensors.torch import save_file
from torch import Tensor, nn

import menura
from menura.policies.check import check_policy
from menura.policies.checking.samples import make_batch
from menura.policies.common.prompts import openvla_prompt
from menura.policies.contract import Contract, build_policy, observation
from menura.policies.openvla.configuration_openvla import HEADS, OpenVLAPolicyConfig
from menura.policies.openvla.heads_openvla import ActionBins, time_token
from menura.policies.openvla.modeling_openvla import OpenVLAPolicy

TINY = yaml.safe_load((Path(menura.__file__).parent / "configs/policy/tiny/openvla.yaml").read_text())["args"]


@pytest.fixture
def make(features):
    def made(**args: Any) -> OpenVLAPolicy:
        torch.manual_seed(0)
        return build_policy(OpenVLAPolicy, {**TINY, **args}, features).eval()

    return made


def batch_of(policy: OpenVLAPolicy, features: Any, size: int = 4) -> dict[str, Any]:
    return make_batch(policy.config, features, None, size)


def loss_of(policy: OpenVLAPolicy, batch: dict[str, Any]) -> Tensor:
    return policy(**Contract.of(OpenVLAPolicy).select(batch))["loss"]


def test_the_real_one_has_the_published_size():
    with torch.device("meta"):
        policy = OpenVLAPolicy(OpenVLAPolicyConfig(camera_names=["front"]))
    size = {name: sum(p.numel() for p in part.parameters()) for name, part in policy.named_children()}
    assert size["language_model"] + size["lm_head"] == pytest.approx(6.74e9, rel=1e-3)
    # 7.54 billion in all (openvla/openvla-7b), of which the last layers of both encoders and SigLIP's pooling, 43
    # million together, are read by nothing and are not here.
    assert sum(size.values()) == pytest.approx(7.541e9 - 0.043e9, rel=1e-3)
    assert size["vision"] == pytest.approx(0.7e9, rel=0.02)


def test_the_prompt_is_the_published_one():
    assert openvla_prompt(" Put the Cup away") == "In: What action should the robot take to put the cup away?\nOut: "


def test_tokens_are_those_of_the_original():
    actions = np.concatenate([np.linspace(-1.2, 1.2, 1001), [-1.0, 0.0, 1.0]])
    bounds = np.linspace(-1, 1, 256)
    theirs = 32000 - np.digitize(np.clip(actions, -1, 1), bounds)
    bins = ActionBins(256, 32000)
    ours = bins.ids(torch.from_numpy(actions))
    np.testing.assert_array_equal(ours.numpy(), theirs)
    centres = (bounds[:-1] + bounds[1:]) / 2
    values = centres[np.clip(32000 - theirs - 1, 0, 254)]
    np.testing.assert_allclose(bins.values(32000 - 1 - ours).numpy(), values, rtol=0, atol=1e-6)


def test_the_time_is_written_as_in_the_original():
    rates = np.exp(np.arange(8) * -np.log(10000) / 7)
    expected = np.concatenate([np.sin(3 * rates), np.cos(3 * rates)])
    np.testing.assert_allclose(time_token(torch.tensor([3]), 16)[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("head", [head for head in HEADS if head != "tokens"])
def test_every_head_keeps_the_contract(head, features):
    results = check_policy(OpenVLAPolicy, args={**TINY, "head": head}, features=features)
    assert [(result.name, result.message) for result in results if not result.ok] == []


@pytest.mark.parametrize("head", ["tokens_parallel", "l1"])
def test_every_head_learns_samples_by_heart(head, make, features):
    policy = make(head=head, camera_names=["front"]).train()
    batch = batch_of(policy, features)
    batch["is_pad"][:] = False
    batch["actions"] = torch.rand_like(batch["actions"]) * 1.8 - 0.9

    def error() -> float:
        policy.eval()
        answer = policy.select_action(observation(batch))
        policy.train()
        return float((answer - batch["actions"]).abs().mean())

    before = error()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3, weight_decay=0.0)
    for step in range(400):
        optimizer.zero_grad()
        loss_of(policy, batch).backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 19 and error() < 0.4 * before:
            return
    assert error() < 0.4 * before


def test_chunks_are_denoised_as_by_the_scheduler_of_the_original(make, features):
    policy = make(head="diffusion", n_diffusion_steps=50, n_inference_steps=50)
    obs, noise = observation(batch_of(policy, features)), torch.randn(4, 2, 3)
    scheduler = DDIMScheduler(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2")
    scheduler.set_timesteps(50)
    sample, prefix = noise, policy.condition(obs)
    with torch.no_grad():
        for time in scheduler.timesteps:
            guess = policy.denoise(sample, time.expand(4), prefix)
            sample = scheduler.step(guess, time, sample).prev_sample
    torch.testing.assert_close(policy.select_action(obs, noise=noise), sample, rtol=1e-4, atol=1e-4)


def test_tokens_are_decoded_as_if_nothing_were_kept(make, features):
    policy = make()
    obs = observation(batch_of(policy, features))
    answer = policy.select_action(obs).flatten(1)
    prefix = policy.condition(obs)
    choices = policy.bins.token_of(torch.arange(256))
    said = torch.zeros(4, 0, dtype=torch.int64)
    for step in range(6):
        logits = policy._token_logits(prefix, torch.cat((said, said.new_zeros(4, 1)), dim=1))[:, -1, choices]
        chosen = logits.argmax(dim=-1)
        torch.testing.assert_close(policy.bins.values(chosen), answer[:, step])
        said = torch.cat((said, choices[chosen][:, None]), dim=1)


def test_a_dimension_that_is_missing_is_read_as_in_training(make, features):
    policy = make()
    obs = observation(batch_of(policy, features))
    mask = torch.ones(4, 3, dtype=torch.bool)
    mask[:, 0] = False
    answer = policy.select_action({**obs, "action_mask": mask})
    prefix, choices = policy.condition(obs), policy.bins.token_of(torch.arange(256))
    # What follows the missing first number is what follows a 0.
    zero = policy.bins.ids(torch.zeros(4, 1))
    logits = policy._token_logits(prefix, torch.cat((zero, zero), dim=1))[:, -1, choices]
    torch.testing.assert_close(policy.bins.values(logits.argmax(dim=-1)), answer[:, 0, 1])


@pytest.mark.parametrize("head", HEADS)
def test_only_tokens_are_causal(head, make, features):
    """The last number of an answer changes what is read at the first place, unless tokens follow each other."""
    policy = make(head=head)
    prefix = policy.condition(observation(batch_of(policy, features)))
    if head == "tokens":
        ids = torch.full((4, 6), 500)
        other = torch.cat((ids[:, :4], ids[:, 4:] + 1), dim=1)
        read, changed = (policy._token_logits(prefix, one)[:, :5] for one in (ids, other))
        torch.testing.assert_close(read, changed)
        return
    places = torch.zeros(4, 6, 64)
    read = policy._all_at_once(prefix, places)
    places[:, -1] = 1.0
    assert not torch.allclose(policy._all_at_once(prefix, places)[:, 0], read[:, 0])


def test_the_state_is_read_where_it_is_asked_for(make, features):
    for use_state in (True, False):
        policy = make(use_state=use_state)
        obs = observation(batch_of(policy, features))
        parts = [policy.condition({**obs, "state": obs["state"] + shift}).before for shift in (0.0, 1.0)]
        assert torch.equal(*parts) is not use_state


def test_noise_is_for_the_head_that_takes_some(make, features):
    policy = make(head="l1")
    with pytest.raises(ValueError, match="expected none"):
        policy.select_action(observation(batch_of(policy, features)), noise=torch.zeros(4, 2, 3))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"head": "l2"}, "one of tokens"),
        ({"camera_names": []}, "at least one camera"),
        ({"image_size": [224, 256]}, "image_size to be that of the vision encoders"),
        ({"action_vocab_end": 99_999}, "action_vocab_end from 256"),
    ],
)
def test_wrong_settings_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        OpenVLAPolicyConfig(**args)


# -- original weights ------------------------------------------------------------------------------------------------


class Timm(nn.Module):
    """A vision transformer of timm, its names and its order of operations, as far as OpenVLA's encoders go."""

    def __init__(self, width: int, depth: int, heads: int, inner: int, registers: int, scaled: bool) -> None:
        super().__init__()
        self.heads = heads
        self.pos_embed = nn.Parameter(torch.randn(1, 4, width))
        if registers:
            self.cls_token = nn.Parameter(torch.randn(1, 1, width))
            self.reg_token = nn.Parameter(torch.randn(1, registers, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, 14, 14)})
        self.blocks = nn.ModuleList(self._block(width, inner, scaled) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def _block(self, width: int, inner: int, scaled: bool) -> nn.ModuleDict:
        block = {
            "norm1": nn.LayerNorm(width, eps=1e-6),
            "attn": nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}),
            "norm2": nn.LayerNorm(width, eps=1e-6),
            "mlp": nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)}),
        }
        for name in ("ls1", "ls2") if scaled else ():
            block[name] = nn.ParameterDict({"scale_factor": nn.Parameter(torch.empty(width))})
        return nn.ModuleDict(block)

    def forward(self, image: Tensor) -> Tensor:
        """The patches after the last block but one, without the norm."""
        x = self.patch_embed["proj"](image).flatten(2).transpose(1, 2) + self.pos_embed
        special = 0
        if hasattr(self, "cls_token"):
            tokens = torch.cat((self.cls_token, self.reg_token), dim=1).expand(len(x), -1, -1)
            special, x = tokens.shape[1], torch.cat((tokens, x), dim=1)
        for block in self.blocks[:-1]:
            scales = [block[name]["scale_factor"] if name in block else 1.0 for name in ("ls1", "ls2")]
            qkv = block["attn"]["qkv"](block["norm1"](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
            x = x + scales[0] * block["attn"]["proj"](mixed)
            inner = nn.functional.gelu(block["mlp"]["fc1"](block["norm2"](x)))
            x = x + scales[1] * block["mlp"]["fc2"](inner)
        return x[:, special:]


@pytest.fixture
def original(make, tmp_path):
    """A checkpoint laid out as `openvla/openvla-7b`, in two files: its directory and its vision encoders."""
    torch.manual_seed(1)
    dino, siglip = Timm(32, 2, 2, 128, 4, scaled=True), Timm(32, 2, 2, 64, 0, scaled=False)
    policy = make()
    language = {
        **{f"language_model.model.{key}": value for key, value in policy.language_model.state_dict().items()},
        "language_model.lm_head.weight": policy.lm_head.weight,
        **{f"projector.{key}": value for key, value in policy.projector.state_dict().items()},
    }
    vision = {
        **{f"vision_backbone.featurizer.{key}": value for key, value in dino.state_dict().items()},
        **{f"vision_backbone.fused_featurizer.{key}": value for key, value in siglip.state_dict().items()},
        "vision_backbone.fused_featurizer.attn_pool.latent": torch.zeros(1, 1, 32),
    }
    files = {
        "model-00001-of-00002.safetensors": {key: torch.randn_like(value) for key, value in language.items()},
        "model-00002-of-00002.safetensors": vision,
    }
    for file, tensors in files.items():
        save_file({key: value.detach().clone().contiguous() for key, value in tensors.items()}, tmp_path / file)
    index = {key: file for file, tensors in files.items() for key in tensors}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return tmp_path, dino, siglip, files["model-00001-of-00002.safetensors"]


def test_original_weights_answer_as_in_the_original(make, original):
    directory, dino, siglip, language = original
    siglip_config = {**TINY["siglip_config"], "hidden_act": "gelu"}  # as OpenVLA's settings say
    policy = make(pretrained_backbone=str(directory), siglip_config=siglip_config)
    image = torch.rand(2, 3, 28, 28) * 2 - 1
    mean, std = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = torch.cat((dino((image / 2 + 0.5 - mean) / std), siglip(image)), dim=-1)
        torch.testing.assert_close(policy.vision(image), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(policy.lm_head.weight, language["language_model.lm_head.weight"])
    assert torch.equal(policy.projector.fc3.bias, language["projector.fc3.bias"])
    name = "layers.1.self_attn.q_proj.weight"
    assert torch.equal(policy.language_model.state_dict()[name], language[f"language_model.model.{name}"])


def test_original_weights_are_those_of_a_checkpoint_no_more(make, original, tmp_path_factory):
    """A saved policy does not ask for the directory it once started from."""
    directory, *_ = original
    policy = make(pretrained_backbone=str(directory))
    saved = tmp_path_factory.mktemp("saved")
    policy.save_pretrained(saved)
    for file in directory.glob("model*"):
        file.unlink()
    again = OpenVLAPolicy.from_pretrained(saved)
    for name, value in policy.vision.state_dict().items():
        torch.testing.assert_close(again.vision.state_dict()[name], value, msg=name)


def test_other_sizes_than_those_of_the_original_are_refused(make, original):
    directory, *_ = original
    with pytest.raises(ValueError, match=r"expected .* of shape"):
        make(pretrained_backbone=str(directory), siglip_config={**TINY["siglip_config"], "intermediate_size": 96})
    with pytest.raises(ValueError, match="are missing"):
        make(pretrained_backbone=str(directory), siglip_config={**TINY["siglip_config"], "num_hidden_layers": 4})


@pytest.mark.parametrize("head", HEADS)
def test_checkpointed_gradients_are_the_same(head, make, features):
    policy = make(head=head).train()
    batch = batch_of(policy, features)

    def gradients() -> Tensor:
        policy.zero_grad()
        torch.manual_seed(0)
        loss_of(policy, batch).backward()
        return torch.cat([p.grad.flatten() for p in policy.parameters()])

    plain = gradients()
    policy.gradient_checkpointing_enable()
    assert sum(getattr(module, "gradient_checkpointing", False) for module in policy.modules()) >= 4  # every layer
    torch.testing.assert_close(gradients(), plain)


@pytest.mark.parametrize("head", HEADS)
def test_weights_in_bfloat16_learn_and_answer(head, make, features):
    policy = make(head=head).to(torch.bfloat16)
    batch = batch_of(policy, features)
    loss = loss_of(policy, batch)
    loss.backward()
    assert torch.isfinite(loss)
    answer = policy.select_action(observation(batch))
    assert answer.dtype == torch.float32
    assert torch.isfinite(answer).all()
