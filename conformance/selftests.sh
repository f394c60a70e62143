#!/bin/sh
# Builds the kernel's own selftests from Debian's linux-source package, in a chroot that has it and
# the compiler, and leaves them in /opt/selftests. A target that does not build is left out: what a
# suite has is what its list says.
set -eu
targets="breakpoints capabilities cgroup clone3 exec filesystems filesystems/epoll futex ipc kcmp landlock
membarrier memfd mincore mount mount_setattr move_mount_set_group mqueue net openat2 pidfd pid_namespace
prctl proc ptrace rlimits rseq seccomp sigaltstack size splice sync syscall_user_dispatch sysctl timens timers
tmpfs vDSO vm x86 sched"
mkdir -p /build
cd /build
tar --extract --xz --file /usr/src/linux-source-*.tar.xz --strip-components 1 \
    --exclude '*/drivers/*' --exclude '*/sound/*' --exclude '*/Documentation/*' --exclude '*/fs/*/*'
make --silent headers
for target in $targets; do
    # One program that does not build keeps a target from being installed, unless errors are ignored.
    make --silent --ignore-errors --directory tools/testing/selftests \
        TARGETS="$target" INSTALL_PATH="/build/installed/$(echo "$target" | tr / -)" install || true
done

mkdir -p /opt/selftests
for folder in /build/installed/*; do
    test -f "$folder/kselftest-list.txt" || continue
    cp --archive "$folder/." /opt/selftests/
    cat "$folder/kselftest-list.txt" >> /build/list
done
# These have one script for many programs: each counts by itself.
for folder in futex/functional vm; do
    for file in "/opt/selftests/$folder"/*; do
        case "$file" in *.sh) continue ;; esac
        test -x "$file" && echo "$folder:${file##*/}" >> /build/list
    done
done
# The first suspends the machine; two were taken apart above; most scripts of net take a minute and want
# modules or tools that the root lacks, even on Linux.
grep --invert-match --line-regexp \
    -e breakpoints:step_after_suspend_test -e futex:run.sh -e vm:run_vmtests.sh -e 'net:.*\.\(sh\|py\)' /build/list |
    while IFS=: read -r folder program; do
        test -x "/opt/selftests/$folder/$program" && echo "$folder:$program"
    done | sort --unique > /opt/selftests/kselftest-list.txt
find /opt/selftests -type f -perm /111 -exec strip --strip-debug {} + 2> /dev/null || true
rm -rf /build
