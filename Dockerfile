# Both agents, the command line, QEMU 10 and the demo guest: docs/compose.md.

FROM debian:trixie-slim AS guest
RUN apt-get update \
  && apt-get install -y --no-install-recommends busybox-static cpio gcc libc6-dev xz-utils
WORKDIR /vmferry
COPY scripts/build-guest.sh scripts/
COPY guest guest
RUN VMFERRY_GUEST_CACHE=/guest sh scripts/build-guest.sh

FROM node:24-trixie-slim AS app
WORKDIR /vmferry
COPY package.json package-lock.json .npmrc ./
COPY packages packages
# The base image has the Node that a checkout brings along as a package.
RUN --mount=type=cache,target=/root/.npm \
  npm ci --omit=dev && rm -r node_modules/node-linux-*
COPY scripts/compose-* scripts/

FROM node:24-trixie-slim
RUN apt-get update \
  && apt-get install -y --no-install-recommends openssl qemu-system-x86 \
  && rm -rf /var/lib/apt/lists/*
# A new volume takes content, owner and mode from the directory that it is mounted on.
ARG UID=7070
RUN groupadd --gid "$UID" vmferry \
  && useradd --uid "$UID" --gid "$UID" --no-create-home --home-dir /nonexistent vmferry \
  && install -d /var/lib/vmferry \
  && install -d -o vmferry -g vmferry -m 0700 \
    /var/lib/vmferry/state /var/lib/vmferry/images /var/lib/vmferry/shared \
    /var/lib/vmferry/tokens /var/lib/vmferry/certs
COPY --from=guest --chown=$UID:$UID /guest/vmlinuz /guest/initrd.img /var/lib/vmferry/images/
COPY --from=app /vmferry /vmferry
ENV PATH=/vmferry/node_modules/.bin:$PATH \
  VMFERRY_STATE_DIR=/var/lib/vmferry/state \
  VMFERRY_IMAGE_DIR=/var/lib/vmferry/images
WORKDIR /var/lib/vmferry
USER vmferry
STOPSIGNAL SIGTERM
CMD ["vmferry", "--help"]
