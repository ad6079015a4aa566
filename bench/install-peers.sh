#!/bin/sh
# Installs Debian packages for the benchmarks, if they are missing and this is root on Debian:
#   install-peers.sh PROGRAM...        (each program is in the package of its name)
# A benchmark runs the programs with configurations of its own, so their services are not started.
# What cannot be installed is said, and is no failure: the benchmark skips it, and says that too.
set -eu

missing=
for program; do
  PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed, and only root on Debian can do it here:$missing" >&2
  exit 0
fi

# Debian asks this program before a package starts its service; 101 means no.
guard=/usr/sbin/policy-rc.d
if [ ! -e "$guard" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$guard"
  chmod 755 "$guard"
  trap 'rm -f "$guard"' EXIT
fi

echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# An old list of packages names files that are gone.
apt-get update -qq >&2 || true
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || echo "cannot install:$missing" >&2
