"""What holds for all tests."""

import pytest
from hypothesis import settings

from merge_core import owners

# How long an example takes says how busy the machine is, not whether the law holds.
settings.register_profile("netweld", deadline=None)
settings.load_profile("netweld")


@pytest.fixture(autouse=True)
def _acts_for_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dashboard tells the process whom it acts for; what it said does not outlast its test."""
    monkeypatch.setattr(owners, "_source", owners.of_the_terminal)
