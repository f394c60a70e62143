#!/bin/sh
# Builds the test programs of Go's standard library that concern the operating system, in a chroot that has
# Debian's golang-1.19, and leaves them in /opt/go, laid out as Go's own folder, with the sources that tests read.
set -eu
packages="context crypto/rand crypto/tls internal/poll internal/syscall/unix io io/fs io/ioutil log log/syslog mime/multipart
net net/http net/http/cgi net/http/fcgi net/http/httptest net/http/httputil net/internal/socktest net/rpc net/rpc/jsonrpc net/smtp
net/textproto os os/exec os/exec/internal/fdtest os/signal os/user path/filepath runtime runtime/debug runtime/pprof runtime/trace sync
sync/atomic syscall testing time archive/tar bufio compress/gzip database/sql embed expvar text/template"
export GOROOT=/usr/lib/go-1.19 GOCACHE=/tmp/go-cache GOFLAGS=-mod=mod GO111MODULE=off CGO_ENABLED=0
mkdir -p /opt/go
cp --recursive --dereference "$GOROOT/VERSION" /opt/go/
cd "$(readlink --canonicalize "$GOROOT/src")"
for package in $packages; do
    test -d "$package" || continue
    mkdir -p "/opt/go/src/$package"
    # A package that does not build is left out: what the suite has is what its list says.
    "$GOROOT/bin/go" test -c -o "/opt/go/src/$package/run.test" "$package" || continue
    cp --recursive --dereference "$package/." "/opt/go/src/$package/"
    echo "$package" >> /opt/go/packages.txt
done
# What tests of other packages read.
for folder in internal/testenv crypto/testdata testdata; do
    test -d "$folder" && mkdir -p "/opt/go/src/$folder" && cp --recursive --dereference "$folder/." "/opt/go/src/$folder/"
done
find /opt/go -name run.test -exec strip --strip-debug {} + 2> /dev/null || true
