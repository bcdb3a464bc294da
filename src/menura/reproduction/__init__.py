"""A table of results made by one command: policies, tasks, training seeds; demonstrations, training, evaluation."""
