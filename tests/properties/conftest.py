"""Examples for the property tests: the same ones in every run, or new ones by the thousand.

``HYPOTHESIS_PROFILE=search pytest tests/properties`` looks for counterexamples that the fixed ones miss.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

slow_to_draw = [HealthCheck.too_slow]  # depends on the load of the machine, not on the code
settings.register_profile(
    "repeatable", max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=slow_to_draw
)
settings.register_profile("search", max_examples=1000, deadline=None, suppress_health_check=slow_to_draw)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
