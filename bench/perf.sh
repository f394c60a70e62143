#!/bin/sh
# The suite `perf`: Debian's `perf bench`, and hackbench of rt-tests. Prints a line a row,
# name<TAB>value<TAB>unit; the value is - where a program does not run.

# row NAME UNIT PATTERN COMMAND...: the value is what the group in PATTERN matches last.
row() {
    name=$1 unit=$2 pattern=$3
    shift 3
    echo "=== $name" >&2
    value=$(timeout 90 "$@" 2>&1 | tee /dev/stderr | sed -n "s/$pattern/\1/p" | tail -n 1)
    printf '%s\t%s\t%s\n' "$name" "${value:--}" "$unit"
}

total='.*Total time: \([0-9.]*\) .*'
usecs=' *\([0-9.]*\) usecs\/op'
rate='.*Averaged \([0-9]*\) .*'
each='^[^[]*in \([0-9.]*\) ms.*'
# Bytes a second, without a unit that depends on how many.
bytes="perf bench -f simple mem \$0 --size 16MB --nr_loops 10 --function default | awk '/^[0-9]/ { print \$1 / 1000000 }'"

echo "# $(uname -r)"
row 'sched messaging' s "$total" perf bench sched messaging --group 2 --nr_loops 50
row 'messaging threads' s "$total" perf bench sched messaging --thread --pipe --group 2 --nr_loops 50
row 'sched pipe' us "$usecs" perf bench sched pipe --loop 5000
row 'sched pipe threads' us "$usecs" perf bench sched pipe --threaded --loop 5000
row 'syscall basic' us "$usecs" perf bench syscall basic --loop 100000
row 'futex hash' op/s "$rate" perf bench futex hash --threads 2 --runtime 2
row 'futex wake' ms "$each" perf bench futex wake --threads 16
row 'futex wake-parallel' ms "$each" perf bench futex wake-parallel --threads 16
row 'futex requeue' ms "$each" perf bench futex requeue --threads 16
row 'futex lock-pi' op/s "$rate" perf bench futex lock-pi --threads 2 --runtime 2
row 'epoll wait' op/s "$rate" perf bench epoll wait --threads 2 --runtime 2
row 'epoll ctl' op/s "$rate" perf bench epoll ctl --threads 2 --runtime 2
row 'mem memcpy' MB/s '\([0-9.]*\)' sh -c "$bytes" memcpy
row 'mem memset' MB/s '\([0-9.]*\)' sh -c "$bytes" memset
row 'hackbench sockets' s 'Time: \([0-9.]*\)' hackbench --groups 2 --loops 50
row 'hackbench pipes' s 'Time: \([0-9.]*\)' hackbench --pipe --groups 2 --loops 50
row 'hackbench threads' s 'Time: \([0-9.]*\)' hackbench --threads --groups 2 --loops 50
