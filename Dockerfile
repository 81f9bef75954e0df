# Two images from one file: `api` holds no torch, `worker` does.
#   docker build --target api    -t epochd-api .
#   docker build --target worker -t epochd-worker .

FROM python:3.12-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Datasets, checkpoints and the first key; a fixed id, so that a volume made by one image belongs to the other's user.
RUN useradd --uid 10001 --create-home epochd && install -d -o epochd -g epochd -m 0750 /data
WORKDIR /src
COPY pyproject.toml requirements.lock README.md ./
COPY alembic alembic
COPY core core
COPY app app
COPY worker worker
COPY cli cli

FROM base AS api
RUN pip install --constraint requirements.lock .
USER epochd
WORKDIR /home/epochd
CMD ["python", "-m", "app"]

FROM base AS worker
RUN pip install --constraint requirements.lock '.[worker]'
USER epochd
WORKDIR /home/epochd
CMD ["celery", "-A", "worker.celery_app", "worker"]
