"""What holds for all tests."""

from hypothesis import settings

# How long an example takes says how busy the machine is, not whether the law holds.
settings.register_profile("netweld", deadline=None)
settings.load_profile("netweld")
