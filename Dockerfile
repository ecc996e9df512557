# The service and the load tests in one image: the same pinned packages, and one thing to build.
# Two stages, so that pip and its cache stay out of what runs.
FROM python:3.13-slim-trixie AS build

# A virtual environment is one folder that the second stage can copy, and it leaves the Python of the
# base image alone.
RUN python -m venv /opt/venv
WORKDIR /build
# What the service and the load tests need, in the versions of constraints.txt (`make requirements`). pip refuses
# a file whose hash is not in it, and a dependency that it does not name, whatever the index says.
# requirements-executors.txt: the engines of --executor as well.
ARG REQUIREMENTS=requirements.txt
COPY deploy/${REQUIREMENTS} requirements.txt
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check \
    --require-hashes --only-binary :all: --requirement requirements.txt

FROM python:3.13-slim-trixie

# The number is repeated in USER because Kubernetes' runAsNonRoot cannot look a name up.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin offloop
COPY --from=build /opt/venv /opt/venv

# Inside a container 127.0.0.1 is reachable for nobody else: both ports serve all addresses, and who may
# reach them is decided by what is published. MPLCONFIGDIR: matplotlib wants a folder it may write to.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    SERVICE_HOST=0.0.0.0 \
    SERVICE_PORT=8080 \
    SERVICE_ADMIN_HOST=0.0.0.0 \
    SERVICE_ADMIN_PORT=8081

# Run from the source, as from a checkout: the package names are too general to install.
# Owned by root, so what runs cannot change itself.
WORKDIR /app
COPY service service
COPY metrics metrics
COPY loadtests loadtests

USER 10001
EXPOSE 8080 8081
# The service's own drain: it empties the accept queue and finishes what runs.
STOPSIGNAL SIGTERM

# The admin port answers from a thread of its own, so a loop that is merely busy is not called unhealthy.
# http.client and not urllib, which would ask a proxy of the environment for 127.0.0.1.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['SERVICE_ADMIN_PORT']), timeout=2); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]

# Exec form: no shell is process 1, which would keep the signals to itself. The service brings the process 1
# that a container needs. Flags go after the image's name.
ENTRYPOINT ["python", "-m", "service"]
