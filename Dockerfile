# The service, the click consumer and the migrator in one image; docker-compose.yml adds the other services.
# The image contains no secret: passwords come from files in /run/secrets or from variables.

ARG PYTHON=python:3.13-slim

FROM $PYTHON AS build
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# LOCKS="oidc otel" adds the login at an OpenID provider, and OpenTelemetry. All have the libraries of statistics.
ARG LOCKS=run
COPY requirements requirements
RUN python -m venv /opt/tools && /opt/tools/bin/pip install --require-hashes -r requirements/build.lock \
 && python -m venv --without-pip /opt/snapurl \
 && /opt/tools/bin/pip --python /opt/snapurl/bin/python install --require-hashes \
        $(for each in $LOCKS; do echo "-r requirements/$each.lock"; done)
COPY pyproject.toml README.md LICENSE ./
COPY ring ring
COPY migrations migrations
COPY snapurl snapurl
COPY tools tools
RUN /opt/tools/bin/python -m hatchling build -t wheel -d /build/dist \
 && /opt/tools/bin/pip --python /opt/snapurl/bin/python install --no-deps --no-index /build/dist/*.whl

FROM $PYTHON
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin snapurl
COPY --from=build /opt/snapurl /opt/snapurl
ENV PATH=/opt/snapurl/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SNAPURL_HOST=0.0.0.0 \
    SNAPURL_PORT=8000
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["snapurl-probe"]
ENTRYPOINT ["snapurl"]
CMD ["serve"]
