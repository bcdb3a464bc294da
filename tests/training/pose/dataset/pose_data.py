import numpy as np
from env.pose_env import PoseEnv

from menura.data import Episode


class PoseData:
    """What `PoseEnv`'s demonstrator does, with the environment's features."""

    def __init__(self, episodes=40, steps=30):
        self.episodes, self.steps, self.env = episodes, steps, PoseEnv()
        self.features = self.env.features

    def __len__(self):
        return self.episodes

    def episode(self, index):
        self.env.start(index)
        states, actions = [], []
        for _ in range(self.steps):
            states.append(self.env.state())
            actions.append(self.env.target())
            self.env.apply(actions[-1])
        return Episode(state=np.array(states), action=np.array(actions), fps=10)
