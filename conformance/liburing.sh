#!/bin/sh
# Builds liburing's own tests from Debian's source package, in a chroot that has a compiler, and leaves them in
# /opt/liburing with a list of their names.
set -eu
sed 's/^deb /deb-src /' /etc/apt/sources.list > /etc/apt/sources.list.d/source.list
apt-get update
mkdir -p /build /opt/liburing
cd /build
apt-get source --download-only liburing
dpkg-source --no-check --extract liburing_*.dsc source
cd source
./configure
make --silent --directory src
# A program that does not build is left out: what the suite has is what its list says.
make --silent --keep-going --jobs 2 --directory test || true
for program in test/*.t; do
    name="${program##*/}"
    cp "$program" "/opt/liburing/$name"
    echo "$name" >> /opt/liburing/tests.txt
done
find /opt/liburing -name '*.t' -exec strip --strip-debug {} +
rm -rf /build
