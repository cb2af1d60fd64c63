"""The machines of `stubborn` for workers that give up sooner than they would; not for processes of the tests."""

from __future__ import annotations

from tests.integration.stubborn import Patient, Stubborn, StubbornLoop
from workers import countdown, executors, pulse

__all__ = ["Patient", "Stubborn", "StubbornLoop"]

# What is seconds elsewhere, so that tests are quick.
executors._GRACE_S = 0.3
countdown.AT_ONCE_S = 0.5
pulse.Pulse.is_due.__defaults__ = (0.2,)
