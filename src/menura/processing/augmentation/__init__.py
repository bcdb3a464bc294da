"""Augmentation: random changes of what a policy sees in training, batched, on its device, and repeatable by seed."""
