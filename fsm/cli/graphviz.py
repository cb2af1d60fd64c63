"""Pictures by Graphviz, where its program `dot` is installed: DOT in, SVG out.

Who calls this: `diagrams`.
"""

from __future__ import annotations

import shutil
import subprocess

from fsm.errors import ConfigError

__all__ = ["svg"]

# A machine of a hundred states takes `dot` less than a second; what takes longer than this is no picture for eyes.
_LONGEST_S = 30.0


def svg(text: str, timeout: float = _LONGEST_S) -> str:
    """Have a graph in DOT laid out and drawn.

    Args:
        text: The graph.
        timeout: Seconds.

    Raises:
        ConfigError: `dot` is not installed, fails or takes too long.
    """
    program = shutil.which("dot")
    if program is None:
        problem = (
            "needs Graphviz, whose program dot is not on PATH: install it (apt-get install graphviz, brew install "
            "graphviz), or use --format dot or mermaid"
        )
        raise ConfigError("--format svg", problem)
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and the text goes to stdin
            [program, "-Tsvg"], input=text.encode(), capture_output=True, check=False, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        problem = f"{program} took more than {timeout:g} s: use --format dot, and lay it out with another of its tools"
        raise ConfigError("--format svg", problem) from error
    except OSError as error:
        raise ConfigError("--format svg", f"{program} cannot be run ({error.strerror}): use --format dot") from error
    if done.returncode or not done.stdout:
        said = " ".join(done.stderr.decode(errors="replace").split())[:500]
        problem = f"{program} ended with {done.returncode} ({said}): use --format dot, and see what it makes of that"
        raise ConfigError("--format svg", problem)
    return done.stdout.decode()
