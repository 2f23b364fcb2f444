"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.register_profile("brief", settings.get_profile("steady"), max_examples=10)
settings.register_profile("search", deadline=None, max_examples=5000, print_blob=True)
settings.load_profile(os.environ.get("OTTLA_HYPOTHESIS", "steady"))
