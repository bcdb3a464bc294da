"""Several recordings as one dataset. Each episode brings its own instruction."""

from menura.data import open_dataset


class Joined:
    def __init__(self, roots):
        self.parts = [open_dataset(root) for root in roots]
        self.features = self.parts[0].features  # names and units, which would else be inferred without them
        self.places = [(part, i) for part in self.parts for i in range(len(part))]

    def __len__(self):
        return len(self.places)

    def episode(self, index):
        part, i = self.places[index]
        return part.episode(i)

    def fingerprint(self):  # may be left out; then every frame is read to make one
        return "-".join(part.fingerprint() for part in self.parts)
