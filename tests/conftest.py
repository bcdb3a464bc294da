"""What every test shares: property tests that find the same things each time; the longest tests begin first."""

import pytest
from hypothesis import settings

settings.register_profile("menura", derandomize=True, deadline=None)
settings.load_profile("menura")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A page of the docs takes a minute: begun at the end, one process would work while the others wait."""
    items.sort(key=lambda item: item.path.name != "test_docs.py")
