# v6fwd in a container: `docker build -t v6fwd .`, then
#     docker run --network host v6fwd forward '[::]:8080' 172.17.0.2:80 --client-ip proxy-v2
# On the host's network, because that is where clients' IPv6 addresses are.
#
# Docker's own seccomp profile forbids io_uring: v6fwd logs so, and uses epoll.
# To allow it, run with a copy of that profile that has io_uring_setup, io_uring_enter and
# io_uring_register: --security-opt seccomp=FILE
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS build
# More options for pip, where packages come from elsewhere than usual.
ARG PIP_OPTIONS=
# 0: without a compiler. The native modules are left out then; Python does their work.
ARG NATIVE=1
RUN test "$NATIVE" = 0 || { apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev liburing-dev; }
WORKDIR /src
COPY . .
RUN python3 -m venv --without-pip /opt/v6fwd \
    && pip() { python3 -m pip --python /opt/v6fwd/bin/python3 --disable-pip-version-check "$@"; } \
    && pip install --no-cache-dir --no-compile ${PIP_OPTIONS} \
        --require-hashes --requirement requirements/run.txt \
    && pip install --no-cache-dir --no-compile ${PIP_OPTIONS} --no-deps --no-build-isolation . \
    && pip uninstall --yes setuptools \
    && cd / && { test "$NATIVE" = 0 || /opt/v6fwd/bin/python3 -c \
        'import v6fwd.relay.ring._ring, v6fwd.relay.pairs._epoll, v6fwd.relay.http._pass, v6fwd.client_ip.http._scan'; } \
    && /opt/v6fwd/bin/python3 -m compileall -q -x /pygments/ /opt/v6fwd/lib

FROM ${PYTHON}
COPY --from=build /opt/v6fwd /opt/v6fwd
ENV PATH=/opt/v6fwd/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1
# Nobody in particular: ports from 1024 on need no right. For lower ones:
#     docker run --user 0 --cap-drop ALL --cap-add NET_BIND_SERVICE ...
USER 65532:65532
ENTRYPOINT ["v6fwd"]
CMD ["--help"]
