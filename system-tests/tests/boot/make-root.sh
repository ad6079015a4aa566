#!/bin/sh
# Makes the root that `make boot-test` boots, once; later runs find it complete:
#   make-root.sh ROOT PIP REQUIREMENTS
# Debian with systemd (12 has the version of Amazon Linux 2023), cloud-init and the AWS CLI. ROOT is
# never written to by a boot: each gets an overlay of its own.
set -eu

root=$1 pip=$2 requirements=$3
suite=bookworm
# cloud-init looks nowhere else, and leaves the network, which is this machine's, alone.
cloud_cfg='datasource_list: [NoCloud]
network: {config: disabled}'
# Debian's own AWS CLI is too old for AWS_ENDPOINT_URL; this is the one that the tests use.
aws_packages='awscli botocore colorama docutils jmespath pyasn1 python-dateutil PyYAML rsa s3transfer six urllib3'

stamp=$(cat "$0" "$requirements" | sha256sum | cut -c1-16)
if [ "$(cat "$root/.complete" 2>/dev/null)" = "$stamp" ]; then exit 0; fi

need() {
  missing=
  for program; do PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null || missing="$missing $program"; done
  [ -z "$missing" ]
}
if [ "$(id -u)" != 0 ]; then
  echo "error: a machine can be booted by root only; run \`make boot-test\` as root." >&2
  exit 8
fi
if ! need debootstrap systemd-nspawn; then
  echo "error: missing:$missing." >&2
  echo "  Install the packages debootstrap and systemd-container and try again." >&2
  exit 8
fi

say() { echo "boot-test: $1 ($(($(date +%s) - begun)) s)" >&2; }
begun=$(date +%s)
new=$root.new
log=$root.log
mkdir -p "$(dirname "$root")"
# What debootstrap mounts in a root that was cut short must not be followed.
discard() {
  for inside in proc sys dev/pts dev; do umount -l "$new/$inside" 2>/dev/null || true; done
  rm -rf --one-file-system "$new"
}
fail() {
  tail -n 20 "$log" >&2
  echo "error: the root for boot-test was not made: $1. The whole log is $log." >&2
  discard
  exit 1
}
discard
trap 'discard; exit 130' INT TERM

# From where this machine has its own packages, if it is a Debian; else debootstrap's default.
mirror=
if command -v apt-get >/dev/null; then
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
    sed -n "s/ $suite\$//p" | head -n 1)
fi

say "fetching Debian $suite into $root, once; about five minutes"
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2,ca-certificates \
  "$suite" "$new" $mirror >"$log" 2>&1 || fail debootstrap
say "installing cloud-init"
# Not together with the rest: its dependencies do not configure in debootstrap's order.
DEBIAN_FRONTEND=noninteractive chroot "$new" sh -c \
  'apt-get update -qq && apt-get install -y -qq --no-install-recommends cloud-init && apt-get clean' \
  >>"$log" 2>&1 || fail cloud-init
say "installing the AWS CLI"
for package in $aws_packages; do
  grep -iE "^$package==" "$requirements" || fail "$requirements does not pin $package"
done >"$new/tmp/requirements"
version=$(chroot "$new" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$pip" install --quiet --no-deps --no-compile --only-binary=:all: --python-version "$version" \
  --target "$new/opt/aws" -r "$new/tmp/requirements" >>"$log" 2>&1 || fail "the AWS CLI"
printf '#!/bin/sh\nPYTHONPATH=/opt/aws exec python3 -m awscli "$@"\n' >"$new/usr/local/bin/aws"
chmod 0755 "$new/usr/local/bin/aws"
chroot "$new" python3 -m compileall -q /opt/aws >>"$log" 2>&1 || fail "compiling the AWS CLI"
chroot "$new" aws --version >>"$log" 2>&1 || fail "the AWS CLI does not run"

echo "$cloud_cfg" >"$new/etc/cloud/cloud.cfg.d/99-boot-test.cfg"
rm -f "$new/tmp/requirements"
# Empty: every boot makes one of its own, and it is no first boot, which would reset what is enabled.
: >"$new/etc/machine-id"
echo "$stamp" >"$new/.complete"
rm -rf --one-file-system "$root"
mv "$new" "$root"
say "the root is complete"
