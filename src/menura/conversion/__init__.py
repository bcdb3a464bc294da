"""Checkpoints of other people: read as ours, and ours written as theirs."""

from menura.conversion.converting import convert, is_foreign, load_foreign, load_foreign_policy
from menura.conversion.foreign import Foreign

__all__ = ["Foreign", "convert", "is_foreign", "load_foreign", "load_foreign_policy"]
