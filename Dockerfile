# The image of docker-compose.yml: the package with its examples, run by a user who is not root.
FROM python:3.12-slim

WORKDIR /app
# The example bank keeps its book in a volume, which takes its owner from here.
RUN useradd --create-home fsm && mkdir /bank && chown fsm /bank

COPY pyproject.toml README.md LICENSE ./
COPY fsm ./fsm
COPY workers ./workers
RUN pip install --no-cache-dir .
COPY examples ./examples

# examples.* are imported from /app by the console script as well as by `python -m`
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1
USER fsm
CMD ["fsm", "worker", "--app", "examples.orders"]
