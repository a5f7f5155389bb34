# memoryd in an image. Without MEMORYD_DATABASE_URL it runs its own Postgres in /var/lib/memoryd.

FROM python:3.13-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/memoryd
ENV PATH=/opt/memoryd/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY requirements requirements
RUN pip install -r requirements/pip.lock
# OFF runs on every x86-64 since Haswell (AVX2) and every ARM64. Where the image runs only on the
# machine that builds it, ON is faster: docker compose build --build-arg GGML_NATIVE=ON
ARG GGML_NATIVE=OFF
RUN CMAKE_ARGS="-DGGML_NATIVE=$GGML_NATIVE -DLLAVA_BUILD=OFF" \
    pip install --require-hashes -r requirements/serve.lock --build-constraint requirements/build.lock
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY migrations migrations
COPY memoryd memoryd
RUN pip install --no-deps . --build-constraint requirements/build.lock

FROM python:3.13-slim
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --home-dir /var/lib/memoryd --shell /usr/sbin/nologin memoryd \
    && install --directory --owner memoryd --group memoryd --mode 0755 /var/lib/memoryd
COPY --from=build /opt/memoryd /opt/memoryd
ENV PATH=/opt/memoryd/bin:$PATH \
    MEMORYD_HOST=0.0.0.0 \
    MEMORYD_DATA_DIR=/var/lib/memoryd \
    MEMORYD_MODELS_DIR=/var/lib/memoryd/models
USER memoryd
VOLUME /var/lib/memoryd
EXPOSE 8765
# SIGTERM stops memoryd as Ctrl-C does.
CMD ["memoryd", "serve"]
