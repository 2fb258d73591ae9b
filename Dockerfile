# pgleak serve as a container image: docker build --tag pgleak .
#
# BASE may be any image with glibc and Python 3.10 or newer, at /usr/bin or /usr/local/bin; Debian's own python3 needs
# its package python3-venv beside it.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /build
# Two environments: the one that is shipped never holds an installer.
RUN python3 -m venv installer && python3 -m venv --without-pip /opt/pgleak
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
RUN installer/bin/pip --python /opt/pgleak/bin/python --no-cache-dir --disable-pip-version-check \
    install '.[server]'
COPY tools/healthcheck.py /opt/pgleak/bin/healthcheck

FROM ${BASE}
ARG VERSION=unknown
LABEL org.opencontainers.image.title="pgleak" \
      org.opencontainers.image.description="Prometheus exporter that catches PostgreSQL connection leaks while they are small" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# The installer that the base brings is of no use to a running exporter, and a finding to every scanner.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/site-packages/pip* \
    /usr/lib/python3*/ensurepip /usr/lib/python3/dist-packages/pip* /usr/share/python-wheels
COPY --from=build /opt/pgleak /opt/pgleak
ENV PATH=/opt/pgleak/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PGLEAK_LISTEN=0.0.0.0:10432
# A number, so that Kubernetes can see by itself that this is not root (runAsNonRoot).
USER 65532:65532
WORKDIR /
EXPOSE 10432
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["python", "/opt/pgleak/bin/healthcheck"]
# Loopback inside a container is nobody's: here PGLEAK_LISTEN is every address. The health check asks there, too.
ENTRYPOINT ["pgleak"]
CMD ["serve"]
