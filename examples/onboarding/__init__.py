"""A new customer, from the sign-up to an active account; asked for by a web application, in FastAPI and in Django.

    fsm worker --app examples.onboarding                  as many as you like, on any host
    python -m examples.onboarding [--url URL]             a few customers come, by way of the FastAPI application

Reading order: `machine` (the diagram and its handlers), `mail` (the effect), `http` (errors as status codes, for both
applications), `fastapi_app` and `django_app` (the same addresses in each). The page is docs/examples/onboarding.md.

Who calls this: readers, and their own applications. It imports what `fsm` offers to everyone; the frameworks are
imported by the modules named after them only.
"""

from examples.onboarding.machine import Customer, Onboarding, Profile, SignUp, Token, Verdict

__all__ = ["Customer", "Onboarding", "Profile", "SignUp", "Token", "Verdict"]
