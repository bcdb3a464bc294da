import numpy as np

from menura.data import Episode


class SeenData:
    """A bright spot in one of two cameras says where to go."""

    def __len__(self):
        return 4

    def episode(self, index):
        rng = np.random.default_rng(index)
        images = {name: rng.integers(0, 256, (10, 16, 20, 3), np.uint8) for name in ("left", "right")}
        return Episode(state=rng.normal(size=(10, 3)), action=rng.normal(size=(10, 2)), images=images, fps=5, task="go")
