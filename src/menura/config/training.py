"""`training:`, checked against the fields of `transformers.TrainingArguments` as its source has them."""

from __future__ import annotations

from menura.config.origins import RANK, Origin, Problems, Tree


def choose_length(tree: Tree, problems: Problems) -> None:
    """Let the stronger of `max_steps` and `num_train_epochs` decide; TrainingArguments would ignore the second."""
    training = tree.value.get("training")
    if not isinstance(training, dict) or not {"max_steps", "num_train_epochs"} <= training.keys():
        return
    steps = tree.origin(("training", "max_steps"))
    epochs = tree.origin(("training", "num_train_epochs"))
    steps_rank, epochs_rank = (_rank(origin) for origin in (steps, epochs))
    if steps_rank == epochs_rank:
        problems.add("training.num_train_epochs", "max_steps is given too. Keep one of them", epochs)
    else:
        weaker = "max_steps" if steps_rank < epochs_rank else "num_train_epochs"
        tree.delete(("training", weaker))


def _rank(origin: Origin | None) -> int:
    return RANK[origin.kind] if origin is not None else -1


def check_training(tree: Tree, problems: Problems) -> None:
    """Report unknown keys, wrong types and wrong choices."""
