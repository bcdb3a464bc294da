"""The table of wrong configurations: each is refused with exactly these messages."""

# ruff: noqa: E501 (a message stands in one line, so that it can be searched for)

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from menura.components import BUILT_IN
from menura.config import load_task
from menura.config.schema import TaskConfig
from menura.config.sections import config_names
from menura.config.yaml_tree import format_value
from menura.data.formats import FORMATS
from menura.errors import ConfigError, listed

COOL = "policy: {class: MyCoolPolicy}\n"
ENV = COOL + "env: {class: MyEnv, args: {task: door}}\n"
CHUNK = "policy: {class: ChunkPolicy, args: {%s}}\n"


@dataclass(frozen=True)
class Wrong:
    """A task, what else is in the project, and the messages it must be refused with."""

    task: str
    messages: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    need_data: bool = False


def wrong(task: str, *messages: str, overrides: str = "", need_data: bool = False, **files: str) -> Wrong:
    return Wrong(task, messages, tuple(overrides.split()), files, need_data)


TABLE = {
    # --- the file itself
    "empty file": wrong("", "YAML: expected a mapping, got an empty file (configs/task/x.yaml)"),
    "only a comment": wrong("# todo\n", "YAML: expected a mapping, got an empty file (configs/task/x.yaml)"),
    "a list on top": wrong(
        "- policy\n", "YAML: expected a mapping at the top level, got a list (configs/task/x.yaml:1)"
    ),
    "a word on top": wrong(
        "policy\n", "YAML: expected a mapping at the top level, got 'policy' (configs/task/x.yaml:1)"
    ),
    "a tab": wrong(
        "policy:\n\tclass: MyCoolPolicy\n",
        "YAML: expected spaces, got a tab. Indent with spaces (configs/task/x.yaml:2)",
    ),
    "an open bracket": wrong(
        "policy: {class: MyCoolPolicy\n", "YAML: expected ',' or '}', but got '<stream end>' (configs/task/x.yaml:2)"
    ),
    "a colon too many": wrong(
        "policy: class: MyCoolPolicy\n", "YAML: mapping values are not allowed here (configs/task/x.yaml:1)"
    ),
    "a python tag": wrong(
        COOL + "training:\n  run_name: !!python/name:os.system\n",
        "training.run_name: expected a plain value, got the tag 'tag:yaml.org,2002:python/name:os.system' (configs/task/x.yaml:3)",
    ),
    "an unknown alias": wrong("policy: *other\n", "YAML: found undefined alias 'other' (configs/task/x.yaml:1)"),
    "an alias in itself": wrong(
        COOL + "training: {lr_scheduler_kwargs: &a {again: *a}}\n",
        "training.lr_scheduler_kwargs.again: the alias contains itself (configs/task/x.yaml:2)",
    ),
    "duplicate key on top": wrong(
        COOL + "env: null\npolicy: {class: ChunkPolicy}\n",
        "policy: key is given twice, first in line 1. Keep one (configs/task/x.yaml:3)",
    ),
    "duplicate key below": wrong(
        "policy:\n  class: MyCoolPolicy\n  args:\n    num_layers: 1\n    num_layers: 2\n",
        "policy.args.num_layers: key is given twice, first in line 4. Keep one (configs/task/x.yaml:5)",
    ),
    "a list as key": wrong(
        COOL + "? [a, b]\n: 3\n", "YAML: expected a word as key, got a list or mapping (configs/task/x.yaml:2)"
    ),
    # --- typos
    "typo on top": wrong(
        COOL + "trainning: {max_steps: 5}\n", "trainning: no such key; did you mean training? (configs/task/x.yaml:2)"
    ),
    "nothing near on top": wrong(
        COOL + "zzz: 3\n",
        f"zzz: no such key. Known here: {', '.join(TaskConfig.model_fields)} (configs/task/x.yaml:2)",
    ),
    "typo in a component": wrong(
        "policy:\n  clas: MyCoolPolicy\n",
        "policy.class: required, but missing (configs/task/x.yaml:1)",
        "policy.clas: no such key; did you mean class? (configs/task/x.yaml:2)",
    ),
    "typo in a dataset": wrong(
        COOL + "datasets:\n  - class: MyData\n    args: {path: data/cube}\n    wieght: 2\n",
        "datasets.0.wieght: no such key; did you mean weight? (configs/task/x.yaml:5)",
    ),
    "typo in evaluation": wrong(
        COOL + "evaluation:\n  episods: 5\n",
        "evaluation.episods: no such key; did you mean episodes? (configs/task/x.yaml:3)",
    ),
    "typo in processor": wrong(
        COOL + "processor:\n  actoin: zscore\n",
        "processor.actoin: no such key; did you mean action? (configs/task/x.yaml:3)",
    ),
    "typo in collect": wrong(
        COOL + "collect:\n  nose: 0.1\n", "collect.nose: no such key; did you mean noise? (configs/task/x.yaml:3)"
    ),
    "typo in data": wrong(
        COOL + "data:\n  cachedir: x\n", "data.cachedir: no such key; did you mean cache_dir? (configs/task/x.yaml:3)"
    ),
    "typo in training": wrong(
        COOL + "training:\n  learning_rte: 0.1\n",
        "training.learning_rte: no such field of transformers.TrainingArguments; did you mean learning_rate? (configs/task/x.yaml:3)",
    ),
    "typo in rollouts": wrong(
        ENV + "training:\n  rollouts:\n    evry: 5\n    episodes: 3\n",
        "training.rollouts.every: required, but missing (configs/task/x.yaml:4)",
        "training.rollouts.evry: no such key; did you mean every? (configs/task/x.yaml:5)",
    ),
    "typo in policy args": wrong(
        "policy:\n  class: MyCoolPolicy\n  args:\n    hiden_size: 512\n",
        "policy.args.hiden_size: no such argument of MyCoolPolicyConfig; did you mean hidden_size? (configs/task/x.yaml:4)",
    ),
    "nothing near in policy args": wrong(
        "policy:\n  class: MyCoolPolicy\n  args:\n    zzz: 512\n",
        "policy.args.zzz: no such argument of MyCoolPolicyConfig. It takes image_feature_dim, state_dim, action_dim, hidden_size, num_layers (configs/task/x.yaml:4)",
    ),
    "typo in env args": wrong(
        COOL + "env:\n  class: MyEnv\n  args:\n    task: door\n    max_episode_step: 3\n",
        "env.args.max_episode_step: no such argument of MyEnv; did you mean max_episode_steps? (configs/task/x.yaml:6)",
    ),
    "neither path nor class": wrong(
        COOL + "datasets:\n- name: cube\n",
        "datasets.0: expected one of path and class, got neither (configs/task/x.yaml:3)",
    ),
    "both path and class": wrong(
        COOL + "datasets:\n- path: data/cube\n  class: MyData\n",
        "datasets.0: expected one of path and class, got both (configs/task/x.yaml:3)",
    ),
    "keys beside a class": wrong(
        COOL + "datasets:\n- class: MyData\n  args: {path: data/cube}\n  keys: {state: qpos}\n",
        "datasets.0: expected format and keys beside path only: a class reads its data in its own way "
        "(configs/task/x.yaml:3)",
    ),
    "typo in a dataset by path": wrong(
        COOL + "datasets:\n- path: data/cube\n  key:\n    state: qpos\n",
        "datasets.0.key: no such key; did you mean keys? (configs/task/x.yaml:4)",
    ),
    "typo in keys": wrong(
        COOL + "datasets:\n- path: data/cube\n  keys:\n    state: qpos\n    image: [top]\n",
        "datasets.0.keys.image: no such key; did you mean images? (configs/task/x.yaml:6)",
    ),
    "keys of another kind": wrong(
        COOL + "datasets:\n- path: data/cube\n  keys:\n    state: {qpos: 7}\n    images: 3\n",
        "datasets.0.keys.state: expected a word or a list, got {qpos: 7} (configs/task/x.yaml:5)",
        "datasets.0.keys.images: expected a mapping or a list, got 3 (configs/task/x.yaml:6)",
    ),
    "an item of keys of another kind": wrong(
        COOL + "datasets:\n- path: data/cube\n  keys: {state: [qpos, 3], images: {top: [a, b]}}\n",
        "datasets.0.keys.state.1: expected a word, got 3 (configs/task/x.yaml:4)",
        "datasets.0.keys.images.top: expected a word, got [a, b] (configs/task/x.yaml:4)",
    ),
    "typo in a filter": wrong(
        COOL + "datasets:\n- path: data/cube\n  filter: {sucess: true}\n",
        "datasets.0.filter.sucess: no such key; did you mean success? (configs/task/x.yaml:4)",
    ),
    "unknown format": wrong(
        COOL + "datasets:\n- path: data/cube\n  format: le_robot\n",
        f"datasets.0.format: expected one of {', '.join(FORMATS)}, got 'le_robot'; did you mean lerobot? (configs/task/x.yaml:4)",
    ),
    "typo in the arguments of a format": wrong(
        COOL + "datasets:\n- path: data/cube\n  format: lerobot\n  args:\n    episode: [0]\n",
        "datasets.0.args.episode: no such argument of LeRobotReader; did you mean episodes? (configs/task/x.yaml:6)",
    ),
    "typo in the arguments of a recognised format": wrong(
        COOL + "datasets:\n- path: data/cube\n  args: {episode: [0]}\n",
        "datasets.0.args.episode: no such argument of LeRobotReader; did you mean episodes? (configs/task/x.yaml:4)",
        **{"data/cube/meta/info.json": '{"codebase_version": "v3.0"}'},
    ),
    "a dataset's key among its arguments": wrong(
        COOL + "datasets:\n- path: data/cube\n  format: lerobot\n  args: {keys: {state: qpos}}\n",
        "datasets.0.args.keys: no such argument of LeRobotReader. It takes episodes (configs/task/x.yaml:5)",
    ),
    "typo in dataset args": wrong(
        COOL + "datasets:\n- class: MyData\n  args:\n    path: data/cube\n    strid: 2\n",
        "datasets.0.args.strid: no such argument of MyData; did you mean stride? (configs/task/x.yaml:6)",
    ),
    "typo in an override": wrong(
        COOL,
        "policy.args.hiden_size: no such argument of MyCoolPolicyConfig; did you mean hidden_size? (command line)",
        overrides="--policy.args.hiden_size 512",
    ),
    "typo in a section file": wrong(
        "policy: mine\n",
        "policy.args.hiden_size: no such argument of MyCoolPolicyConfig; did you mean hidden_size? (configs/policy/mine.yaml:3)",
        **{"configs/policy/mine.yaml": "class: MyCoolPolicy\nargs:\n  hiden_size: 3\n"},
    ),
    # --- values
    "a word for a number": wrong(
        COOL + "evaluation:\n  episodes: ten\n",
        "evaluation.episodes: expected a whole number, got 'ten' (configs/task/x.yaml:3)",
    ),
    "a quoted number": wrong(
        COOL + "evaluation:\n  episodes: '10'\n",
        "evaluation.episodes: expected a whole number, got '10' (configs/task/x.yaml:3)",
    ),
    "a fraction for a count": wrong(
        COOL + "evaluation:\n  num_envs: 2.5\n",
        "evaluation.num_envs: expected a whole number, got 2.5 (configs/task/x.yaml:3)",
    ),
    "zero episodes": wrong(
        COOL + "evaluation:\n  episodes: 0\n",
        "evaluation.episodes: expected a number greater than 0, got 0 (configs/task/x.yaml:3)",
    ),
    "a negative seed": wrong(
        COOL + "evaluation:\n  seed: -1\n",
        "evaluation.seed: expected a number of at least 0, got -1 (configs/task/x.yaml:3)",
    ),
    "yes for true": wrong(
        COOL + "evaluation:\n  exact: yes\n",
        "evaluation.exact: expected true or false, got 'yes' (configs/task/x.yaml:3)",
    ),
    "unknown execution": wrong(
        COOL + "evaluation:\n  execution: open-loop\n",
        "evaluation.execution: expected 'open_loop' or 'temporal_ensemble', got 'open-loop'; did you mean open_loop? (configs/task/x.yaml:3)",
    ),
    "unknown normalizer": wrong(
        COOL + "processor:\n  state: z-score\n",
        "processor.state: expected 'zscore', 'minmax', 'percentile' or 'identity', got 'z-score'; did you mean zscore? (configs/task/x.yaml:3)",
    ),
    "videos neither number nor all": wrong(
        COOL + "evaluation:\n  videos: some\n",
        "evaluation.videos: expected a whole number or 'all', got 'some' (configs/task/x.yaml:3)",
    ),
    "a mask of numbers": wrong(
        COOL + "processor:\n  state_mask: [1, 0]\n",
        "processor.state_mask.0: expected true or false, got 1 (configs/task/x.yaml:3)",
        "processor.state_mask.1: expected true or false, got 0 (configs/task/x.yaml:3)",
    ),
    "a camera of one number": wrong(
        COOL + "collect:\n  cameras: {top: [84]}\n",
        "collect.cameras.top: expected 2 items, got [84] (configs/task/x.yaml:3)",
    ),
    "a camera of no height": wrong(
        COOL + "collect:\n  cameras: {top: [0, 84]}\n",
        "collect.cameras.top.0: expected a number greater than 0, got 0 (configs/task/x.yaml:3)",
    ),
    "a weight for some": wrong(
        COOL
        + "datasets:\n- {class: MyData, args: {path: data/cube}, weight: 1}\n- {class: MyData, args: {path: data/cube}}\n",
        "datasets.1: expected a weight for every dataset or for none, got some (configs/task/x.yaml:4)",
    ),
    "a weight of zero": wrong(
        COOL + "datasets:\n- class: MyData\n  args: {path: data/cube}\n  weight: 0\n",
        "datasets.0.weight: expected a number greater than 0, got 0 (configs/task/x.yaml:5)",
    ),
    "datasets not a list": wrong(
        COOL + "datasets: data/cube\n", "datasets: expected a list, got 'data/cube' (configs/task/x.yaml:2)"
    ),
    "a dataset that is a number": wrong(
        COOL + "datasets: [3]\n", "datasets.0: expected a mapping, got 3 (configs/task/x.yaml:2)"
    ),
    "args not a mapping": wrong(
        "policy:\n  class: MyCoolPolicy\n  args: 3\n", "policy.args: expected a mapping, got 3 (configs/task/x.yaml:3)"
    ),
    "class not a word": wrong("policy:\n  class: 3\n", "policy.class: expected a word, got 3 (configs/task/x.yaml:2)"),
    "a section that is a number": wrong(
        "policy: 3\n", "policy: expected a mapping or the name of a section, got 3 (configs/task/x.yaml:1)"
    ),
    "a section that is a list": wrong(
        COOL + "training: [1]\n",
        "training: expected a mapping or the name of a section, got [1] (configs/task/x.yaml:2)",
    ),
    "no policy": wrong("training: {max_steps: 5}\n", "policy: required, but missing (configs/task/x.yaml)"),
    "no class": wrong(
        "policy:\n  args: {num_layers: 2}\n", "policy.class: required, but missing (configs/task/x.yaml:1)"
    ),
    "text for a number in policy args": wrong(
        "policy:\n  class: MyCoolPolicy\n  args:\n    num_layers: three\n",
        "policy.args.num_layers: expected a number, got 'three' (configs/task/x.yaml:4)",
    ),
    "annotated number": wrong(
        CHUNK % "dropout: high", "policy.args.dropout: expected a number, got 'high' (configs/task/x.yaml:1)"
    ),
    "annotated choice": wrong(
        CHUNK % "activation: tanh",
        "policy.args.activation: expected 'relu' or 'gelu', got 'tanh' (configs/task/x.yaml:1)",
    ),
    "annotated flag": wrong(
        CHUNK % "use_vae: 1", "policy.args.use_vae: expected true or false, got 1 (configs/task/x.yaml:1)"
    ),
    "annotated list": wrong(
        CHUNK % "camera_names: top",
        "policy.args.camera_names: expected a list of words or null, got 'top' (configs/task/x.yaml:1)",
    ),
    "annotated list of words": wrong(
        CHUNK % "camera_names: [1, 2]",
        "policy.args.camera_names: expected a list of words or null, got [1, 2] (configs/task/x.yaml:1)",
    ),
    "negative size": wrong(
        "policy:\n  class: MyCoolPolicy\n  args:\n    hidden_size: -512\n",
        "policy.args.hidden_size: expected a number greater than 0, got -512 (configs/task/x.yaml:4)",
    ),
    "negative layers": wrong(
        "policy:\n  class: MyCoolPolicy\n  args:\n    num_layers: -1\n",
        "policy.args.num_layers: expected a number of at least 0, got -1 (configs/task/x.yaml:4)",
    ),
    "chunk of nothing": wrong(
        CHUNK % "chunk_size: 0",
        "policy.args.chunk_size: expected a number greater than 0, got 0 (configs/task/x.yaml:1)",
    ),
    "image size of three": wrong(
        CHUNK % "image_size: [3, 84, 84]",
        "policy.args.image_size: expected [height, width], both greater than 0, got [3, 84, 84] (configs/task/x.yaml:1)",
    ),
    "negative image size": wrong(
        CHUNK % "image_size: [84, -84]",
        "policy.args.image_size: expected [height, width], both greater than 0, got [84, -84] (configs/task/x.yaml:1)",
    ),
    "chunk shorter than n_action_steps": wrong(
        CHUNK % "chunk_size: 8, n_action_steps: 20",
        "policy.args.n_action_steps: expected at most chunk_size, which is 8, got 20 (configs/task/x.yaml:1)",
    ),
    "n_action_steps beyond the default chunk": wrong(
        CHUNK % "n_action_steps: 11",
        "policy.args.n_action_steps: expected at most chunk_size, which is 10, got 11 (configs/task/x.yaml:1)",
    ),
    "chunk shorter than the default n_action_steps": wrong(
        CHUNK % "chunk_size: 4",
        "policy.args.chunk_size: expected at least n_action_steps, which is 5 by default, got 4. Set n_action_steps too (configs/task/x.yaml:1)",
    ),
    "one camera twice": wrong(
        CHUNK % "camera_names: [top, top]",
        "policy.args.camera_names: expected different cameras, got 'top' twice (configs/task/x.yaml:1)",
    ),
    "an encoder without cameras": wrong(
        CHUNK % "camera_names: []" + "image_encoder: {class: MyEncoder, args: {width: 8}}\n",
        "policy.args.camera_names: expected at least one camera, because image_encoder is set, got [] (configs/task/x.yaml:1)",
    ),
    "a mask of another width": wrong(
        "policy: {class: MyCoolPolicy, args: {action_dim: 3}}\nprocessor: {action_mask: [true, false]}\n",
        "processor.action_mask: expected 3 values, as policy.args.action_dim says, got 2 (configs/task/x.yaml:2)",
    ),
    "required argument": wrong(
        COOL + "env:\n  class: MyEnv\n", "env.args.task: required by MyEnv, but missing (configs/task/x.yaml:2)"
    ),
    "required argument of an encoder": wrong(
        COOL + "image_encoder:\n  class: MyEncoder\n  args:\n",
        "image_encoder.args.width: required by MyEncoder, but missing (configs/task/x.yaml:4)",
    ),
    # --- training
    "training: a word for a number": wrong(
        COOL + "training:\n  learning_rate: fast\n",
        "training.learning_rate: expected a number, got 'fast' (configs/task/x.yaml:3)",
    ),
    "training: a fraction for a count": wrong(
        COOL + "training:\n  max_steps: 0.5\n",
        "training.max_steps: expected a whole number, got 0.5 (configs/task/x.yaml:3)",
    ),
    "training: a word for a flag": wrong(
        COOL + "training:\n  bf16: 'yes'\n", "training.bf16: expected true or false, got 'yes' (configs/task/x.yaml:3)"
    ),
    "training: unknown schedule": wrong(
        COOL + "training:\n  lr_scheduler_type: cosin\n",
        "training.lr_scheduler_type: expected one of linear, cosine, cosine_with_restarts, polynomial, constant, constant_with_warmup, inverse_sqrt, reduce_lr_on_plateau, cosine_with_min_lr, cosine_warmup_with_min_lr, warmup_stable_decay, greedy, got 'cosin'; did you mean cosine? (configs/task/x.yaml:3)",
    ),
    "training: no batch": wrong(
        COOL + "training:\n  per_device_train_batch_size: 0\n",
        "training.per_device_train_batch_size: expected a number of at least 1, got 0 (configs/task/x.yaml:3)",
    ),
    "training: no step": wrong(
        COOL + "training:\n  max_steps: 0\n",
        "training.max_steps: expected at least 1, or give num_train_epochs instead, got 0 (configs/task/x.yaml:3)",
    ),
    "training: unset steps and no epochs": wrong(
        COOL,
        "training.max_steps: expected at least 1, or give num_train_epochs instead, got -1 (command line)",
        overrides="--training.max_steps -1",
    ),
    "training: ema of two": wrong(
        COOL + "training:\n  ema: 2\n",
        "training.ema: expected true, false or a decay in (0, 1), got 2 (configs/task/x.yaml:3)",
    ),
    "training: peft a word": wrong(
        COOL + "training:\n  peft: lora\n",
        "training.peft: expected a mapping such as {type: lora, r: 16}, got 'lora' (configs/task/x.yaml:3)",
    ),
    "training: rollouts every zero": wrong(
        ENV + "training:\n  rollouts: {every: 0, episodes: 3}\n",
        "training.rollouts.every: expected a number greater than 0, got 0 (configs/task/x.yaml:4)",
    ),
    "training: rollouts incomplete": wrong(
        ENV + "training:\n  rollouts: {every: 10}\n",
        "training.rollouts.episodes: required, but missing (configs/task/x.yaml:4)",
    ),
    "training: steps and epochs": wrong(
        COOL + "training:\n  max_steps: 10\n  num_train_epochs: 2\n",
        "training.num_train_epochs: max_steps is given too. Keep one of them (configs/task/x.yaml:4)",
    ),
    "training: rollouts without env": wrong(
        COOL + "training:\n  rollouts: {every: 10, episodes: 3}\n",
        "training.rollouts: expected a task with an environment to evaluate in, got none. Add env (configs/task/x.yaml:3)",
    ),
    # --- named sections
    "missing section": wrong(
        "policy: atc\n",
        "policy: no policy is named 'atc'; did you mean act? Looked for configs/policy/atc.yaml or menura/configs/policy/atc.yaml (configs/task/x.yaml:1)",
    ),
    "missing section, class meant": wrong(
        "policy: MyCoolPolicy\n",
        f"policy: no policy is named 'MyCoolPolicy'. Known: {listed(config_names('policy', Path('nowhere')))}. Looked for configs/policy/MyCoolPolicy.yaml or menura/configs/policy/MyCoolPolicy.yaml. A class is written {{class: MyCoolPolicy}} (configs/task/x.yaml:1)",
    ),
    "missing base": wrong(
        COOL + "training: {base: defualt}\n",
        "training: no training is named 'defualt'; did you mean default? Looked for configs/training/defualt.yaml or menura/configs/training/defualt.yaml (configs/task/x.yaml:2)",
    ),
    "base not a word": wrong(
        COOL + "training: {base: 3}\n", "training.base: expected the name of a section, got 3 (configs/task/x.yaml:2)"
    ),
    "a section that names itself": wrong(
        "policy: a\n",
        "policy.base: sections name each other in a circle: a -> a (configs/policy/a.yaml:1)",
        **{"configs/policy/a.yaml": "base: a\n"},
    ),
    "sections in a circle": wrong(
        "policy: a\n",
        "policy.base: sections name each other in a circle: a -> b -> a (configs/policy/b.yaml:2)",
        **{"configs/policy/a.yaml": "base: b\n", "configs/policy/b.yaml": "# b\nbase: a\n"},
    ),
    "a section file that is a list": wrong(
        "policy: a\n",
        "YAML: expected a mapping at the top level, got a list (configs/policy/a.yaml:1)",
        **{"configs/policy/a.yaml": "- 1\n"},
    ),
    # --- classes
    "unknown class": wrong(
        "policy:\n  class: MyCoolPolcy\n",
        "policy.class: no policy class is named 'MyCoolPolcy'; did you mean MyCoolPolicy? Looked in policy/ of the project, Menura's own (POLICIES), entry points menura.policy (configs/task/x.yaml:2)",
    ),
    "nothing like this class": wrong(
        "policy: {class: Zebra}\n",
        "policy.class: no policy class is named 'Zebra'. Looked in policy/ of the project, Menura's own (POLICIES), entry points menura.policy (configs/task/x.yaml:1)",
    ),
    "unknown class of Menura's": wrong(
        COOL + "env: {class: Metaworld}\n",
        "env.class: no env class is named 'Metaworld'; did you mean MetaWorld? Looked in env/ of the project, Menura's own ("
        + f"{', '.join(BUILT_IN['env'])}), entry points menura.env (configs/task/x.yaml:2)",
    ),
    "two classes of one name": wrong(
        COOL,
        "policy.class: MyCoolPolicy is defined more than once: policy/my_cool_policy.py:9 and policy/other.py:3. Say which, as in policy/my_cool_policy.py:MyCoolPolicy (configs/task/x.yaml:1)",
        **{"policy/other.py": "\n\nclass MyCoolPolicy:\n    pass\n"},
    ),
    "missing file of a class": wrong(
        "policy: {class: 'policy/gone.py:MyCoolPolicy'}\n",
        "policy.class: policy/gone.py:MyCoolPolicy: no such file: policy/gone.py (configs/task/x.yaml:1)",
    ),
    "missing class in a file": wrong(
        "policy: {class: 'policy/my_cool_policy.py:MyColPolicy'}\n",
        "policy.class: policy/my_cool_policy.py: no class is named 'MyColPolicy'; did you mean MyCoolPolicy? (configs/task/x.yaml:1)",
    ),
    "missing module of a class": wrong(
        "policy: {class: 'policy.my_col_policy:MyCoolPolicy'}\n",
        "policy.class: policy.my_col_policy:MyCoolPolicy: no module is named 'policy.my_col_policy'; did you mean policy.my_cool_policy? (configs/task/x.yaml:1)",
    ),
    "a colon and no class": wrong(
        "policy: {class: 'policy.my_cool_policy:'}\n",
        "policy.class: 'policy.my_cool_policy:': expected pkg.module:Class or path/to/file.py:Class (configs/task/x.yaml:1)",
    ),
    "syntax error in the policy": wrong(
        "policy: {class: Broken}\n",
        "policy.class: policy/broken.py:2: syntax error: '(' was never closed (configs/task/x.yaml:1)",
        **{"policy/broken.py": "class Broken:\n    def forward(self:\n        pass\n"},
    ),
    "syntax error beside an unknown class": wrong(
        "policy: {class: Zebra}\n",
        "policy.class: no policy class is named 'Zebra'. Looked in policy/ of the project, Menura's own (POLICIES), entry points menura.policy. Not readable: policy/broken.py:2: syntax error: '(' was never closed (configs/task/x.yaml:1)",
        **{"policy/broken.py": "class Broken:\n    def forward(self:\n"},
    ),
    "a policy without a config class": wrong(
        "policy: {class: Bare}\n",
        "policy.class: Bare (policy/bare.py:2) names no config class. Write config_class = BareConfig in it (configs/task/x.yaml:1)",
        **{"policy/bare.py": "from transformers import PreTrainedModel\nclass Bare(PreTrainedModel): ...\n"},
    ),
    # --- overrides
    "override of a missing list item": wrong(
        COOL + "datasets: [data/cube]\n",
        "datasets.1: no such list item; the last one is 0 (command line)",
        overrides="--datasets.1.path data/cube",
    ),
    "override of an item of no list": wrong(
        COOL,
        "datasets.0: no such list item; the list is empty (command line)",
        overrides="--datasets.0.path data/cube",
    ),
    "override of a list by a word": wrong(
        COOL + "datasets: [data/cube]\n",
        "datasets.first: expected the number of a list item, got 'first' (command line)",
        overrides="--datasets.first.path data/cube",
    ),
    "override below a number": wrong(
        COOL,
        "training.max_steps.x: training.max_steps is 2000, which has no keys (command line)",
        overrides="--training.max_steps.x 3",
    ),
    "override without a value": wrong(
        COOL,
        "training.max_steps: expected a value: --a.b value, or a.b=value (command line)",
        overrides="--training.max_steps",
    ),
    "override followed by an option": wrong(
        COOL,
        "training.max_steps: expected a value: --a.b value, or a.b=value (command line)",
        overrides="--training.max_steps --evaluation.episodes 3",
    ),
    "override with an empty key": wrong(
        COOL,
        "training..max_steps: expected a path of keys such as policy.args.hidden_size (command line)",
        overrides="--training..max_steps 3",
    ),
    "override that is no YAML": wrong(
        COOL, "training.max_steps: expected a YAML value, got '[1' (command line)", overrides="--training.max_steps=[1"
    ),
    "override of an unknown section": wrong(
        COOL, "polcy: no such key; did you mean policy? (command line)", overrides="--polcy.args.x 1"
    ),
    "override that names a missing section": wrong(
        COOL,
        "policy: no policy is named 'atc'; did you mean act? Looked for configs/policy/atc.yaml or menura/configs/policy/atc.yaml (command line)",
        overrides="--policy atc",
    ),
    "override with a wrong value": wrong(
        COOL,
        "evaluation.episodes: expected a whole number, got 'none' (command line)",
        overrides="--evaluation.episodes=none",
    ),
    "override of a list item's argument": wrong(
        COOL + "datasets:\n- class: MyData\n  args: {path: data/cube}\n",
        "datasets.0.args.stride: expected a whole number, got 'wide' (command line)",
        overrides="--datasets.0.args.stride wide",
    ),
    # --- interpolation, datasets
    "interpolation of nothing": wrong(
        COOL + "evaluation:\n  episodes: ${training.steps}\n",
        "evaluation.episodes: cannot be interpolated: Interpolation key 'training.steps' not found (configs/task/x.yaml:3)",
    ),
    "interpolation that does not end": wrong(
        COOL + "evaluation:\n  episodes: ${training.max_steps\n",
        "evaluation.episodes: cannot be interpolated: no viable alternative at input '${training.max_steps' (configs/task/x.yaml:3)",
    ),
    "interpolation of a wrong type": wrong(
        COOL + "evaluation:\n  episodes: ${policy.class}\n",
        "evaluation.episodes: expected a whole number, got 'MyCoolPolicy' (configs/task/x.yaml:3)",
    ),
    "two datasets of one name": wrong(
        COOL
        + "datasets:\n- {class: MyData, args: {path: a}, name: cube}\n- {class: MyData, args: {path: b}, name: cube}\n",
        "datasets.1.name: 'cube' is the name of datasets.0 too (configs/task/x.yaml:4)",
    ),
    "no dataset": wrong(
        COOL, "datasets: expected at least one dataset, got none (configs/task/x.yaml)", need_data=True
    ),
    "a path that is mistyped, and a dataset of the Hub": wrong(
        COOL + "datasets:\n- data/cub\n- lerobot/pusht@v2.0\n",
        "datasets.0.path: no such file or folder: data/cub; did you mean data/cube? (configs/task/x.yaml:3)",
        need_data=True,
    ),
    "a dataset that is not there": wrong(
        COOL + "datasets:\n- data/cub\n",
        "datasets.0.path: no such file or folder: data/cub; did you mean data/cube? (configs/task/x.yaml:3)",
        need_data=True,
    ),
    "a path that is not there": wrong(
        COOL + "datasets:\n- class: MyData\n  args:\n    path: nowhere/at/all\n",
        "datasets.0.args.path: no such file or folder: nowhere/at/all (configs/task/x.yaml:5)",
        need_data=True,
    ),
}


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE.keys())
def test_message(case: Wrong, write: Callable[..., Path]) -> None:
    task = write(case.task, **case.files)
    with pytest.raises(ConfigError) as caught:
        load_task(task, case.overrides, need_data=case.need_data)
    own = ", ".join(BUILT_IN["policy"])
    assert caught.value.problems == tuple(message.replace("POLICIES", own) for message in case.messages)


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 45


KEYS = [
    *("datasets", "policy", "env", "training", "evaluation", "processor", "collect", "data", "image_encoder", "name"),
    *("class", "args", "base", "weight", "path", "chunk_size", "n_action_steps", "camera_names", "image_size", "ema"),
    *(
        "rollouts",
        "max_steps",
        "num_train_epochs",
        "cameras",
        "state_mask",
        "state_dim",
        "project",
        "videos",
        "<<",
        "x",
    ),
]
WORDS = [
    "ChunkPolicy",
    "MyEnv",
    "default",
    "act",
    "${x}",
    "${",
    "a:b",
    "x.py",
    "",
    "policy/my_cool_policy.py:ChunkPolicy",
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 30) | st.floats(allow_nan=False) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=5), st.sampled_from(KEYS), ANYTHING)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_whatever_is_written_is_loaded_or_refused(
    write: Callable[..., Path], content: dict[str, object], key: str, value: object
) -> None:
    task = write("".join(f"{name}: {format_value(part)}\n" for name, part in {**content, "env": None}.items()))
    with contextlib.suppress(ConfigError):
        load_task(
            task, [f"--policy.args.{key}={format_value(value)}", f"--{key}={format_value(value)}"], need_data=True
        )
