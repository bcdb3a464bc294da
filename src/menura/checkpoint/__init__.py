"""Checkpoints that prove themselves (docs/design.md section 6)."""

from menura.checkpoint.load import Checkpoint, load_checkpoint
from menura.checkpoint.load import verify_checkpoint as verify
from menura.checkpoint.manifest import MANIFEST_FILE, Manifest
from menura.checkpoint.merge import merge_checkpoint
from menura.checkpoint.save import save_checkpoint, write_checkpoint_files

__all__ = [
    "MANIFEST_FILE",
    "Checkpoint",
    "Manifest",
    "load_checkpoint",
    "merge_checkpoint",
    "save_checkpoint",
    "verify",
    "write_checkpoint_files",
]
