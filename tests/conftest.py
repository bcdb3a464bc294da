"""What every test shares: property tests that find the same things each time; the longest tests begin first."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings

from menura.priority import ANSWERING, go_first

settings.register_profile("menura", derandomize=True, deadline=None)
settings.load_profile("menura")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A page of the docs takes a minute: begun at the end, one process would work while the others wait."""
    items.sort(key=lambda item: item.path.name != "test_docs.py")


@pytest.fixture
def first_permitted() -> None:
    """Skips where no thread may go before other programs."""
    with ThreadPoolExecutor(1) as other:
        if not other.submit(go_first, ANSWERING).result():
            pytest.skip("the system lets no thread here go first")
