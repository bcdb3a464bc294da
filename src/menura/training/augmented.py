"""What a task's augmentations make of a frame, for eyes: by the way that training goes, and back to pixels and units.

Windows, `Processor.inputs`, `Augmentations`, `Processor.masked` are the training's own; nothing is made anew here but
the way back. They are put together, and torch is imported, when the first frame is asked for.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from menura.config import load_task
from menura.config.schema import DatasetConfig
from menura.data.pictures import encode_png
from menura.errors import ConfigError

if TYPE_CHECKING:
    from menura.data import Windows
    from menura.processing.normalizer import Normalizer
    from menura.training.ingredients import Ingredients


class AugmentedFrames:
    """The frames of a dataset as a task would augment them, were it trained on that dataset alone.

    Frames are read from the dataset when they are asked for, so that no store of them is built first.

    Args:
        task: its name, or the path of its YAML.
        dataset: what is looked at instead of the task's own datasets, as in a task's `datasets:`; a relative path
            begins where the command runs.

    Raises:
        ConfigError: the task is wrong, or none of its pictures can be augmented.
    """

    def __init__(self, task: str | Path, dataset: Mapping[str, Any]) -> None:
        resolved = load_task(task, kinds=("policy", "augmentation"))
        if resolved.config.image_encoder is not None:
            raise ConfigError(
                f"--augment: expected a task that is trained on pixels, got an image encoder, whose features are "
                f"computed once ({resolved.locate('image_encoder')})."
            )
        spec = dict(dataset)
        if (place := Path.cwd() / Path(str(spec["path"])).expanduser()).exists():
            spec["path"] = str(place)
        config = resolved.config
        self._name = resolved.name
        self._augmentations = [
            f"{each.class_}({', '.join(f'{name}={value}' for name, value in each.args.items())})"
            for each in config.augmentations
        ]
        self._task = type(resolved)(
            config=config.model_copy(
                update={
                    "datasets": [DatasetConfig.model_validate(spec)],
                    "data": config.data.model_copy(update={"store": "video"}),
                    "training": {},  # what the policy is made of does not matter here
                }
            ),
            origins=resolved.origins,
            project=resolved.project,
            name=resolved.name,
        )
        self._lock = Lock()
        self._gathered: Ingredients | None = None

    def show(self, episode: int, frame: int, seeds: Sequence[int]) -> dict[str, Any]:
        """A frame as it is, and with each seed; JSON-able.

        Returns:
            `task`, `augmentations` in words; `cameras`: [{name, original, augmented: [one a seed]}], PNGs as data URLs,
            at the size the policy sees, the newest of an observation's steps; `state`: {names, original (D),
            augmented (seed, D)} and `actions`: {names, original (T, A), augmented (seed, T, A)} in physical units, None
            where they are not changed.
        """
        from menura.data import collate

        with self._lock:
            made = self._ingredients()
        items, processor = cast("Windows", made.train), made.processor  # of one dataset: no mixture
        item = int(items.lengths[:episode].sum()) + frame
        plain = processor.masked(processor.inputs(collate(items.__getitems__([item]))))
        batches = [plain]
        if made.augmentations is not None:
            batches += [processor.masked(made.augmentations(plain, (seed,))) for seed in seeds]
        state, action = processor.trained.state, processor.trained.action
        return {
            "task": self._name,
            "augmentations": self._augmentations,
            "cameras": _cameras(batches, processor.camera_names, processor.settings.image_normalize),
            "state": _numbers(batches, "state", state.names if state else (), processor.state_normalizer),
            "actions": _numbers(batches, "actions", action.names, processor.action_normalizer),
        }

    def _ingredients(self) -> Ingredients:
        if self._gathered is None:
            from menura.training.ingredients import gather

            self._gathered = gather(self._task, seed=0, hold_out=False, allow_bad_data=True)
        return self._gathered


def _cameras(batches: Sequence[Mapping[str, Any]], names: Sequence[str], normalization: Any) -> list[dict[str, Any]]:
    from menura.processing.images import ImageNormalization

    if "image" not in batches[0]:
        return []
    parsed = ImageNormalization.parse(normalization)
    mean, std = (np.array(each).reshape(3, 1, 1) for each in (parsed.mean, parsed.std))
    cameras = []
    for place, name in enumerate(names):
        pictures = []
        for batch in batches:
            images = batch["image"][0].cpu().numpy()  # ([O,] K, 3, H, W)
            newest = images if images.ndim == 4 else images[-1]
            pictures.append(_png(newest[place] * std + mean))
        cameras.append({"name": name, "original": pictures[0], "augmented": pictures[1:]})
    return cameras


def _png(pixels: NDArray[np.floating[Any]]) -> str:
    """A (3, H, W) picture in [0, 1] as a data URL."""
    frame = np.rint(255 * pixels.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return f"data:image/png;base64,{base64.b64encode(encode_png(frame)).decode()}"


def _numbers(
    batches: Sequence[Mapping[str, Any]], key: str, names: Sequence[str], normalizer: Normalizer | None
) -> dict[str, Any] | None:
    """In physical units: the newest state (D), or the actions (T, A)."""
    if key not in batches[0] or normalizer is None:
        return None
    values = [normalizer.unnormalize(batch[key])[0].cpu().numpy() for batch in batches]  # ([O or T,] D)
    if key == "state":
        values = [each if each.ndim == 1 else each[-1] for each in values]
    elif values[0].ndim == 1:
        values = [each[None] for each in values]
    original, *augmented = values
    if all(np.array_equal(original, each) for each in augmented):
        return None
    return {"names": list(names), "original": original.tolist(), "augmented": [each.tolist() for each in augmented]}
