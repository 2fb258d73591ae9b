# The application of `make demo`, which leaks: Flask on SQLAlchemy, with pgleak inside.
FROM python:3.13-slim
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY exporter exporter
RUN pip install --no-cache-dir --disable-pip-version-check . psycopg2-binary Flask
USER 65532:65532
WORKDIR /
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
CMD ["python", "-m", "pgleak.demo.app"]
