"""What a plan is: a generator that yields requests and is given their replies.

Who calls this: the verbs, which are plans, and the client, which carries them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

from fsm.store.requests import Request

__all__ = ["Plan"]

R = TypeVar("R")
Plan = Generator[Request[Any], Any, R]
