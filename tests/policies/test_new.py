"""`new_policy` writes two files that work as they are."""

from __future__ import annotations

import pytest

from menura.config import load_task
from menura.errors import ContractError
from menura.policies.check import check_policy
from menura.policies.new import new_policy


def test_what_it_writes_passes_the_check(tmp_path):
    files = new_policy("my_cool_policy", tmp_path)
    assert files == [tmp_path / "policy/my_cool_policy.py", tmp_path / "configs/task/my_cool_policy.yaml"]
    results = check_policy("MyCoolPolicy", project=tmp_path)
    assert [result for result in results if not result.ok] == []


def test_the_task_it_writes_is_valid_and_names_the_policy(tmp_path):
    _, task = new_policy("my_cool_policy", tmp_path)
    config = load_task(task).config
    assert config.policy.class_ == "MyCoolPolicy"
    assert config.policy.args == {"hidden_size": 512, "num_layers": 2}


def test_the_environment_it_writes_has_only_to_be_uncommented(tmp_path):
    _, task = new_policy("my_cool_policy", tmp_path)
    text = task.read_text()
    assert load_task(task).config.env is None
    for line in ("env: aloha_transfer", "expert:", "  class: AlohaTransferExpert"):
        assert f"# {line}" in text
        text = text.replace(f"# {line}", line)
    task.write_text(text)
    config = load_task(task).config
    assert (config.env.class_, config.expert.class_) == ("Aloha", "AlohaTransferExpert")


@pytest.mark.parametrize(
    ("name", "stem"), [("MyCoolPolicy", "my_cool_policy"), ("act2", "act2"), ("my-policy", "my_policy")]
)
def test_names_that_will_do(tmp_path, name, stem):
    assert new_policy(name, tmp_path)[0].name == f"{stem}.py"


@pytest.mark.parametrize("name", ["", "2fast", "a/b", "../x", "class", "naïve", "my policy", "_", "__"])
def test_names_that_will_not_do(tmp_path, name):
    with pytest.raises(ContractError, match=r"Try `my_cool_policy`\."):
        new_policy(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["policy/mine.py", "configs/task/mine.yaml"])
def test_nothing_is_overwritten(tmp_path, there):
    file = tmp_path / there
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    with pytest.raises(ContractError) as error:
        new_policy("mine", tmp_path)
    assert str(error.value) == f"{file}: expected no such file, got one. Choose another name, or remove it."
    assert file.read_text() == "precious"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
