"""Checkpoints of other people: read as ours, and ours written as theirs."""
