#!/usr/bin/env bash
# Builds the image without a container engine and without a registry, and tries it out: as root, on Debian.
#
#   apt-get install --no-install-recommends buildah debootstrap
#   deploy/docker/build-offline.sh [ARCHIVE]
#
# The base is made by debootstrap from the mirror that apt uses here, the packages come from where pip finds them here. Everything
# lies in one scratch directory, which goes at the end; ARCHIVE keeps the image (`docker load --input ARCHIVE`). It is one to try: the
# base has Debian's point release, without the security updates since.
set -euo pipefail

repository=$(cd "$(dirname "$0")/../.." && pwd)
archive=${1:+$(realpath "$1")}
scratch=$(mktemp --directory --tmpdir sweeper-image.XXXXXX)
trap 'rm -rf --one-file-system "$scratch"' EXIT
export BUILDAH_ISOLATION=chroot TMPDIR=$scratch

image() { buildah --storage-driver vfs --root "$scratch/storage" --runroot "$scratch/run" "$@"; }

say() { printf '\n== %s\n' "$*"; }

# The mirror, as apt knows it, of the suite that this machine runs.
mirror() {
  apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v suite="$1" '$1 == suite && $2 == "main" { print $3; exit }'
}

make_base() {
  local suite base
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  debootstrap --variant=minbase --include=python3,python3-pip,python3-venv \
    "$suite" "$scratch/base" "$(mirror "$suite")" >"$scratch/debootstrap.log" ||
    { tail "$scratch/debootstrap.log" >&2; return 1; }
  rm -rf "$scratch"/base/var/cache/apt/* "$scratch"/base/var/lib/apt/lists/* "$scratch"/base/usr/share/{doc,man,locale}
  base=$(image from scratch)
  image add --quiet "$base" "$scratch/base" / >/dev/null
  image commit --quiet "$base" localhost/base >/dev/null
}

# Wheels of what the image needs and of what builds it, as the locks' hashes name them, for the Python that the base has.
collect_wheels() {
  chroot "$scratch/base" python3 -c 'import sys; print("Python", sys.version.split()[0])'
  python3 -m pip download --quiet --dest "$scratch/wheels" --require-hashes --requirement "$repository/deploy/docker/plain.lock"
  python3 -m pip download --quiet --dest "$scratch/wheels" --require-hashes --requirement "$repository/deploy/docker/build.lock"
}

build() {
  image build --quiet --file "$repository/deploy/docker/Dockerfile" \
    --ignorefile "$repository/deploy/docker/Dockerfile.dockerignore" \
    --build-arg BASE=localhost/base --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/wheels \
    --volume "$scratch/wheels:/wheels:ro" --tag localhost/sweeper "$repository"
}

# A command in the image as a cluster would run it: numeric user, no new privilege, root read-only, /tmp empty.
contained() {
  unshare --mount bash -euc '
    root=$1; shift
    mount --bind "$root" "$root"
    mount --options remount,bind,ro "$root"
    mount --types tmpfs tmpfs "$root/tmp"
    exec env --ignore-environment PATH=/opt/sweeper/bin:/usr/bin:/bin SWEEPER_CONFIG=/etc/sweeper/sweeper.toml \
      setpriv --no-new-privs /usr/sbin/chroot --userspec=10001:10001 "$root" "$@"' - "$@"
}

try_out() {
  local container root
  container=$(image from localhost/sweeper)
  root=$(image mount "$container")
  image inspect --type image --format 'user {{.OCIv1.Config.User}}, entrypoint {{.OCIv1.Config.Entrypoint}}{{println}}' localhost/sweeper
  echo "size: base $(du -sm "$scratch/base" | cut -f1) MB, /opt/sweeper $(du -sm "$root/opt/sweeper" | cut -f1) MB"
  echo "packages:" "$root"/opt/sweeper/lib/python3*/site-packages/*.dist-info | sed "s#/[^ ]*/##g; s#\.dist-info##g"
  contained "$root" id
  contained "$root" sweeper --version
  contained "$root" sweeper --help
  if contained "$root" touch /opt/sweeper/written; then
    echo "the root file system could be written to" >&2
    return 1
  fi
}

say "base"; make_base
say "wheels"; collect_wheels
say "build"; build
say "try out"; try_out
if [ -n "$archive" ]; then
  say "archive"; image push --quiet localhost/sweeper "docker-archive:$archive:sweeper:latest"
fi
