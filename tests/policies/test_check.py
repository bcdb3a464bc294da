"""`check_policy` names what is wrong: the guide's listing as printed, and one policy for each fault there is."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from menura.errors import ComponentError
from menura.features import Features
from menura.policies.check import CheckResult, check_policy
from menura.policies.checking.samples import default_encoder_dim
from menura.policies.cnn_mlp.modeling_cnn_mlp import CNNMLPPolicy
from menura.policies.contract import Contract
from menura.policies.flow.modeling_flow import FlowPolicy
from menura.policies.mlp.modeling_mlp import MLPPolicy

GUIDE = Path(__file__).parents[1] / "guide"

#: A whole policy; a test replaces parts of it.
WHOLE = dedent("""
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel


    class PolicyConfig(PretrainedConfig):
        def __init__(self, state_dim=4, action_dim=3, chunk_size=6, hidden_size=16, **kwargs):
            super().__init__(**kwargs)
            self.state_dim = state_dim
            self.action_dim = action_dim
            self.chunk_size = chunk_size
            self.hidden_size = hidden_size


    class Policy(PreTrainedModel):
        config_class = PolicyConfig

        def __init__(self, config):
            super().__init__(config)
            self.body = nn.Sequential(nn.Linear(config.state_dim, config.hidden_size), nn.ReLU())
            self.head = nn.Linear(config.hidden_size, config.chunk_size * config.action_dim)
            self.post_init()

        def forward(self, state, actions=None, is_pad=None):
            hidden = self.body(state)
            predicted = self.head(hidden).reshape(len(state), self.config.chunk_size, self.config.action_dim)
            if actions is None:
                return predicted
            error = (predicted - actions).abs().mean(-1)
            return {"loss": (error * ~is_pad).sum() / (~is_pad).sum()}

        def select_action(self, obs_dict):
            return self.forward(obs_dict["state"])
""")


@pytest.fixture
def project(tmp_path):
    (tmp_path / "policy").mkdir()
    return tmp_path


def check(project: Path, *replacements: tuple[str, str]) -> list[CheckResult]:
    source = WHOLE
    for old, new in replacements:
        assert old in source, old
        source = source.replace(old, new)
    (project / "policy" / "mine.py").write_text(source)
    return check_policy("Policy", project=project)


def failures(results: list[CheckResult]) -> dict[str, str]:
    return {result.name: result.message for result in results if not result.ok}


# ---------------------------------------------------------------- the guide


def test_the_guide_as_printed_has_three_faults():
    shared, missing, post_init, runs = check_policy("MyCoolPolicy", project=GUIDE / "as_printed")
    file = "policy/my_cool_policy.py"
    assert shared == CheckResult(
        "layers of their own",
        False,
        f"{file}:35: expected config.num_layers layers of their own, got the same ones config.num_layers times "
        "(`[nn.Linear(config.hidden_size * 2, config.hidden_size), nn.ReLU()] * config.num_layers`): they share their "
        "weights, which cannot be saved, nor does its output fit its input. Write:\n"
        "    mlp_layers = [nn.Linear(config.hidden_size * 2, config.hidden_size), nn.ReLU()]\n"
        "    for _ in range(config.num_layers - 1):\n"
        "        mlp_layers += [nn.Linear(config.hidden_size, config.hidden_size), nn.ReLU()]",
    )
    assert missing == CheckResult(
        "names are imported",
        False,
        f"{file}:48: expected torch to be imported or defined, got a name nothing in the file binds. "
        "Write `import torch` at the top of the file.",
    )
    assert post_init == CheckResult(
        "self.post_init()",
        True,
        f"{file}:38: note: __init__ ends without `self.post_init()`, and transformers cannot load such a model back. "
        "Menura completes it; to load it without Menura, write as the last line of __init__:\n    self.post_init()",
    )
    assert runs == CheckResult("runs", False, "not tried. Mend the above first.")


def test_the_lines_named_are_the_lines_meant():
    lines = (GUIDE / "as_printed/policy/my_cool_policy.py").read_text().splitlines()
    assert "* config.num_layers" in lines[35 - 1]
    assert "torch.cat" in lines[48 - 1]
    assert "self.action_head = " in lines[38 - 1]


def test_what_the_messages_say_to_write_mends_the_guide(project):
    """The three mends, taken from the messages and applied by line, give a policy that passes."""
    shared, missing, post_init, _ = check_policy("MyCoolPolicy", project=GUIDE / "as_printed")
    lines = (GUIDE / "as_printed/policy/my_cool_policy.py").read_text().splitlines()
    indent = " " * 8
    code = {result.name: result.message.partition(":\n")[2].splitlines() for result in (shared, post_init)}
    lines[38 - 1] += "\n" + "\n".join(indent + line.removeprefix("    ") for line in code[post_init.name])
    lines[35 - 1] = "\n".join(indent + line.removeprefix("    ") for line in code[shared.name])
    lines.insert(0, re.search(r"`(import torch)`", missing.message)[1])
    (project / "policy" / "my_cool_policy.py").write_text("\n".join(lines))
    args = {"hidden_size": 16}
    assert failures(check_policy("MyCoolPolicy", project=project, args=args)) == {}


def test_the_guide_mended_passes_every_check():
    results = check_policy("MyCoolPolicy", project=GUIDE / "mended", args={"hidden_size": 32, "num_layers": 4})
    assert failures(results) == {}
    assert [result.name for result in results] == [
        "builds",
        "trains for one step",
        "every parameter gets a gradient",
        "the loss falls on one batch",
        "select_action and forward agree",
        "rows do not influence each other",
        "padded steps do not change the loss",
        "the batch is left as it was",
        "a seed repeats everything",
        "saves and loads",
    ]


# ---------------------------------------------------------------- where it looks


def test_a_whole_policy_passes(project):
    assert failures(check(project)) == {}


def test_a_class_is_checked_like_a_name(features: Features):
    results = check_policy(MLPPolicy, args={"hidden_size": 8}, features=features)
    assert failures(results) == {}


def test_pixels_two_cameras_and_history(features: Features):
    args = {"image_size": [24, 24], "n_obs_steps": 2, "channels": 8}
    assert failures(check_policy(CNNMLPPolicy, args=args, features=features)) == {}


@pytest.mark.parametrize(
    ("policy_class", "args", "dim"),
    [
        (FlowPolicy, {}, None),  # its `image_feature_dim` is None, and `forward` names `image`: pixels
        (FlowPolicy, {"image_feature_dim": 64}, 32),
        (MLPPolicy, {"image_feature_dim": 64}, 32),
        (CNNMLPPolicy, {}, None),
    ],
)
def test_a_policy_sees_features_or_pixels(policy_class, args, dim, features: Features):
    """Two cameras."""
    contract = Contract.of(policy_class)
    assert default_encoder_dim(policy_class.config_class, contract, features, args) == dim


def test_large_images_are_checked_at_a_smaller_size_unless_one_is_given():
    from menura.policies.act.configuration_act import ACTPolicyConfig
    from menura.policies.act.modeling_act import ACTPolicy
    from menura.policies.check import _trial

    small = {"hidden_size": 32, "n_heads": 2, "feedforward_size": 32, "backbone_widths": [16], "backbone_depths": [1]}
    assert ACTPolicyConfig().image_size == [480, 640]
    assert _trial(ACTPolicy, small, None, None).batch["image"].shape == (4, 1, 3, 224, 224)
    given = {**small, "image_size": [240, 320]}
    assert _trial(ACTPolicy, given, None, None).batch["image"].shape == (4, 1, 3, 240, 320)


def test_the_arguments_are_those_of_the_task_that_names_it(project):
    (project / "configs" / "task").mkdir(parents=True)
    task = project / "configs" / "task" / "mine.yaml"
    task.write_text("policy:\n  class: Policy\n  args: {hidden_size: 5}\n")
    # 4·5 + 5 of the body, 5·18 + 18 of the head
    assert check(project)[0] == CheckResult("builds", True, "133 parameters, as configs/task/mine.yaml has it")
    task.write_text("policy:\n  class: Policy\n  args: {hiden_size: 5}\n")
    (result,) = check(project)
    assert result.name == "builds"
    assert "policy.args.hiden_size: no such argument of PolicyConfig; did you mean hidden_size?" in result.message
    assert "configs/task/mine.yaml:3" in result.message


def test_no_such_policy(project):
    with pytest.raises(ComponentError, match="no policy class is named 'Nobody'"):
        check_policy("Nobody", project=project)


# ---------------------------------------------------------------- one fault each


def test_several_missing_imports(project):
    results = check(project, ("import torch\nfrom torch import nn\n", ""))
    assert failures(results)["names are imported"] == (
        "policy/mine.py:19: expected nn to be imported or defined, got a name nothing in the file binds. "
        "Write `from torch import nn` at the top of the file."
    )


def test_a_forgotten_post_init_is_a_note(project):
    results = check(project, ("        self.post_init()\n", ""))
    assert failures(results) == {}
    (note,) = [result for result in results if result.name == "self.post_init()"]
    assert note.message.startswith("policy/mine.py:22: note: __init__ ends without `self.post_init()`")


def test_shared_blocks_of_equal_width(project):
    results = check(
        project,
        ("nn.ReLU())", "nn.ReLU(), *([nn.Linear(config.hidden_size, config.hidden_size)] * 2))"),
    )
    assert failures(results)["layers of their own"].endswith(
        "Write:\n    layers = []\n    for _ in range(2):\n"
        "        layers += [nn.Linear(config.hidden_size, config.hidden_size)]"
    )


def test_lists_that_may_be_repeated(project):
    results = check(
        project,
        ("nn.ReLU())", "*([nn.ReLU()] * 2))\n        self.sizes = [str(1)] * 3"),
    )
    assert failures(results) == {}


def test_shapes_that_do_not_fit_name_the_layer_and_the_line(project):
    results = check(project, ("nn.Linear(config.hidden_size, config.chunk", "nn.Linear(8, config.chunk"))
    assert failures(results) == {
        "trains for one step": "policy/mine.py:27: layer head: expected in_features = 16, the width of its input "
        "(4, 16), got 8. Write `nn.Linear(16, 18)`."
    }


def test_a_reshape_that_does_not_fit_names_the_line(project):
    results = check(project, (".reshape(len(state), self.config.chunk_size,", ".reshape(len(state), 7,"))
    message = failures(results)["trains for one step"]
    assert message.startswith("policy/mine.py:27: RuntimeError: shape '[4, 7, 3]' is invalid")


@pytest.mark.parametrize(
    ("check_name", "message", "replacements"),
    [
        (
            "builds",
            "policy/mine.py:21: AttributeError: 'PolicyConfig' object has no attribute 'width'",
            [("nn.Linear(config.state_dim, config.hidden_size)", "nn.Linear(config.state_dim, config.width)")],
        ),
        (
            "builds",
            "policy Policy: expected a method select_action, got none. Define `def select_action(self, …):`.",
            [("def select_action", "def act")],
        ),
        (
            "trains for one step",
            "Policy.forward in training: expected a dict with 'loss', got a tensor of shape (4, 6, 3). "
            "Return {'loss': loss} when `actions` is given.",
            [("if actions is None", "if True")],
        ),
        (
            "trains for one step",
            "Policy.forward in training: expected a loss that depends on the weights, got one without a gradient. "
            "Compute it outside torch.no_grad() and without .item() or .detach().",
            [("(predicted - actions)", "(predicted.detach() - actions)")],
        ),
        (
            "trains for one step",
            "Policy.forward in training: expected a finite loss, got nan. "
            "Lower the learning rate, or look for a division by zero or a log of zero in the loss.",
            [("(~is_pad).sum()}", "0.0 * float('nan')}")],
        ),
        (
            "trains for one step",
            "Policy.forward: the required parameter 'image' is provided by nobody; expected one of state, task, "
            "actions, is_pad, timestep, dataset_id. Use a dataset that has it, or give the parameter a default.",
            [
                ("def forward(self, state,", "def forward(self, state, image,"),
                ("action_dim=3,", "action_dim=3, camera_names=(),"),
            ],
        ),
        (
            "every parameter gets a gradient",
            "Policy: expected a gradient in every parameter, got none in spare.bias, spare.weight. "
            "Use them in the loss, or freeze them with requires_grad_(False).",
            [("self.post_init()", "self.spare = nn.Linear(2, 2)\n        self.post_init()")],
        ),
        (
            "select_action and forward agree",
            "Policy.select_action: expected actions of shape (4, 6, 3), got (4, 18).",
            [('return self.forward(obs_dict["state"])', 'return self.forward(obs_dict["state"]).flatten(1)')],
        ),
        (
            "select_action and forward agree",
            "Policy: expected select_action and forward without actions to agree, got shapes (4, 3) and (4, 6, 3). "
            "Call forward in select_action, with the same inputs.",
            [('return self.forward(obs_dict["state"])', 'return self.forward(obs_dict["state"])[:, 0]')],
        ),
        (
            "select_action and forward agree",
            "policy/mine.py:34: KeyError: 'proprio'",
            [('return self.forward(obs_dict["state"])', 'return self.forward(obs_dict["proprio"])')],
        ),
        (
            "padded steps do not change the loss",
            "(is_pad) not to change the loss",
            [('"loss": (error * ~is_pad).sum() / (~is_pad).sum()', '"loss": error.mean()')],
        ),
        (
            "the batch is left as it was",
            "Policy: expected batch['state'] to be left as it was, got it changed in place. Write `x = x + …` and not "
            "`x += …`, and copy before assigning to a part.",
            [("hidden = self.body(state)", "state += 1\n        hidden = self.body(state)")],
        ),
        (
            "rows do not influence each other",
            "Policy.select_action: expected each row to depend on its own observation, got a change of",
            [("hidden = self.body(state)", "hidden = self.body(state - state.mean(0))")],
        ),
        (
            "a seed repeats everything",
            "Policy.forward: expected the same loss from the same seed, got",
            [
                ("import torch\n", "import random\nimport torch\n"),
                ("hidden = self.body(state)", "hidden = self.body(state) + random.random()"),
            ],
        ),
        (
            "saves and loads",
            "PolicyConfig: expected chunk_size = 6 after saving and loading, got 9. "
            "Assign `self.chunk_size = chunk_size` in __init__.",
            [("self.chunk_size = chunk_size", "self.chunk_size = chunk_size if 'architectures' not in kwargs else 9")],
        ),
        (
            "saves and loads",
            "Policy: expected every tensor to be there after loading, got offset without values: it is neither a "
            "parameter nor a buffer. Write `self.register_buffer('offset', …)` in __init__.",
            [
                ("self.post_init()", "self.offset = torch.rand(())\n        self.post_init()"),
                ("hidden = self.body(state)", "hidden = self.body(state) + self.offset"),
            ],
        ),
        (
            "saves and loads",
            "Policy: expected the same actions after saving and loading, got a difference of",
            [
                (
                    "self.post_init()",
                    "self.register_buffer('offset', torch.rand(()), persistent=False)\n        self.post_init()",
                ),
                ("hidden = self.body(state)", "hidden = self.body(state) + self.offset"),
            ],
        ),
    ],
)
def test_each_fault_is_named(project, check_name, message, replacements):
    found = failures(check(project, *replacements))
    assert message in found.get(check_name, f"nothing; but {found}")


def test_a_loss_that_does_not_fall(project):
    results = check(project, ("        return {", "        error.register_hook(lambda g: -g)\n        return {"))
    assert failures(results)["the loss falls on one batch"].startswith(
        "Policy: expected the loss to fall on one batch, got from"
    )


def test_a_loss_below_zero_may_fall(project):
    assert failures(check(project, ('{"loss": (error', '{"loss": -(error'))) == {}


def test_predictions_that_only_broadcast(project):
    results = check(
        project,
        (
            "error = (predicted - actions).abs().mean(-1)",
            "error = nn.functional.l1_loss(predicted[:, :1], actions, reduction='none').mean(-1)",
        ),
    )
    assert failures(results)["trains for one step"].startswith(
        "Policy.forward in training: expected predictions of the shape of `actions`, (4, 6, 3), got: "
    )


@pytest.mark.parametrize(
    "replacements",
    [
        [
            (
                'return self.forward(obs_dict["state"])',
                'return self.forward(obs_dict["state"]) + torch.randn(len(obs_dict["state"]), 6, 3)',
            )
        ],
        [
            ("def select_action(self, obs_dict):", "def select_action(self, obs_dict, generator=None):"),
            (
                'return self.forward(obs_dict["state"])',
                "noise = torch.stack([torch.randn(6, 3, generator=g) for g in generator])\n"
                '        return self.forward(obs_dict["state"]) + noise',
            ),
        ],
    ],
)
def test_a_policy_that_samples_passes(project, replacements):
    assert failures(check(project, *replacements)) == {}
