"""Every package of a Debian host as an FSM: a real `dpkg.log` is its stream of events.

Begin with `machine` (which changes dpkg makes), then `log` (how its log is read), `replay` (feeding a log through the
client and checking what came out), `processes` (the workers), `display` (what a person sees); `__main__` ties them up:

    python -m examples.dpkg [--log PATH] [--url URL] [--workers N] [--json]

Who calls this: `make demo`, and whoever wants to see the whole path at work on real input.
"""
