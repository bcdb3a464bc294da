"""What every test shares: property tests that find the same things each time."""

from hypothesis import settings

settings.register_profile("menura", derandomize=True, deadline=None)
settings.load_profile("menura")
