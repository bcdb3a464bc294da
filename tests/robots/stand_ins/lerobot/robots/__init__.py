from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import draccus


@dataclass(kw_only=True)
class RobotConfig(draccus.ChoiceRegistry):
    id: str | None = None
    calibration_dir: Path | None = None
