# syntax=docker/dockerfile:1
# What a component of a pipeline, the model server, the gateway and TensorBoard run in:
#
#   docker build --tag langzoo:0.1.0 .
#   docker build --tag langzoo:0.1.0-gpu --build-arg VARIANT=gpu .
#
# VARIANT names the lock in docker/ whose packages are installed, and none but those.
# The images that it starts from can be given by digest: serving/deployment/README.md.

ARG UV_IMAGE=ghcr.io/astral-sh/uv:0.13.9
ARG BASE_IMAGE=ubuntu:24.04

FROM ${UV_IMAGE} AS uv

FROM ${BASE_IMAGE} AS build
ARG VARIANT=cpu
# Ubuntu keeps one version of a package only, so none can be asked for.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=uv /uv /usr/local/bin/uv
# Byte-code now, once: nothing can be written later.
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_INSTALL_DIR=/opt/python
RUN uv venv --managed-python --python 3.11 /opt/langzoo
ENV VIRTUAL_ENV=/opt/langzoo
WORKDIR /src
# The packages before the sources, which change more often.
COPY requirements.lock docker/${VARIANT}.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip sync --require-hashes --build-constraints requirements.lock ${VARIANT}.lock
COPY . .
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --build-constraints requirements.lock .

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title=langzoo \
    org.opencontainers.image.description="Raw text to a gated, served language model" \
    org.opencontainers.image.licenses=Apache-2.0
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-log-init --create-home langzoo
COPY --from=build /opt /opt
ENV PATH=/opt/langzoo/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /home/langzoo
ENTRYPOINT ["langzoo"]
CMD ["--help"]
