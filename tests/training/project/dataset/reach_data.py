import numpy as np

from menura.data import Episode


class ReachData:
    """A point that walks to a goal: state (position, goal), action (velocity)."""

    def __init__(self, episodes: int = 12, steps: int = 20):
        self.episodes, self.steps = episodes, steps

    def __len__(self):
        return self.episodes

    def episode(self, index):
        rng = np.random.default_rng(index)
        position, goal = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 2)
        states, actions = [], []
        for _ in range(self.steps):
            action = np.clip(goal - position, -0.1, 0.1)
            states.append(np.concatenate([position, goal]))
            actions.append(action)
            position = position + action
        return Episode(state=np.array(states, np.float32), action=np.array(actions, np.float32), fps=10)
