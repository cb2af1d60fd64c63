"""How many examples are tried: few in the suite, many with `HYPOTHESIS_PROFILE=long`."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("long", max_examples=1500, deadline=None)
if "HYPOTHESIS_PROFILE" in os.environ:
    settings.load_profile(os.environ["HYPOTHESIS_PROFILE"])
