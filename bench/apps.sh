#!/bin/sh
# The suite `apps`: programs from Debian's packages, unmodified. Prints a line a row,
# name<TAB>value<TAB>unit; the value is - where a program does not run.

# row NAME UNIT PATTERN COMMAND...: the value is what the group in PATTERN matches last.
row() {
    name=$1 unit=$2 pattern=$3
    shift 3
    echo "=== $name" >&2
    value=$(timeout 120 "$@" 2>&1 < /dev/null | tr '\r' '\n' | tee /dev/stderr | sed -n "s/$pattern/\1/p" | tail -n 1)
    printf '%s\t%s\t%s\n' "$name" "${value:--}" "$unit"
}

# seconds NAME COMMAND...: the value is how long the command takes, if it succeeds.
seconds() {
    name=$1
    shift
    echo "=== $name" >&2
    before=$(date +%s.%N)
    if timeout 120 "$@" > /dev/null < /dev/null; then
        value=$(echo "$before $(date +%s.%N)" | awk '{ printf "%.3f", $2 - $1 }')
    else
        value=-
    fi
    printf '%s\t%s\ts\n' "$name" "$value"
}

# serves PORT: waits until somebody listens there.
serves() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        python3 -c "import socket; socket.create_connection(('127.0.0.1', $1), 1)" 2> /dev/null && return
        sleep 0.3
    done
    echo "nobody listens on port $1" >&2
}

programs() {
    seconds 'python3 start' python3 -c pass
    seconds 'python3 computing' python3 -c 'print(sum(i * i % 7 for i in range(300000)))'
    printf '#define STB_IMAGE_IMPLEMENTATION\n#include <stb/stb_image.h>\n' > /tmp/image.c
    seconds 'gcc stb_image' gcc -O1 -c /tmp/image.c -o /tmp/image.o
    for place in tmpfs disk; do
        seconds "sqlite3 on $place" sqlite3 /bench/$place/bench.db "
            create table t (a integer primary key, b text);
            begin;
            with recursive n(x) as (select 1 union all select x + 1 from n where x < 20000)
                insert into t select x, hex(x * 7919) from n;
            commit;
            create index i on t (b);
            select count(*) from t where b like '3%';
            update t set b = b || 'x' where a % 10 = 0;
            delete from t where a % 3 = 0;"
    done
}

# Python's library as a tree of sources: unpacked, kept by git, looked through, and removed.
tree_rows() {
    tar -C /usr/lib/python3.11 -cf /bench/tmpfs/tree.tar .
    for place in tmpfs disk; do
        tree=/bench/$place/tree
        mkdir $tree
        seconds "untar on $place" tar -C $tree -xf /bench/tmpfs/tree.tar
        git -C $tree init --quiet
        seconds "git add on $place" git -C $tree add .
        seconds "git status on $place" git -C $tree status --short
        seconds "rm -r on $place" rm -r $tree
        seconds "1000 inserts on $place" sqlite3 /bench/$place/inserts.db "pragma journal_mode = wal; create table t (a);
            $(for n in $(seq 1000); do echo "insert into t values ($n);"; done)"
    done
}

sysbench_rows() {
    row 'sysbench cpu' op/s ' *events per second: *\([0-9.]*\)' sysbench cpu --time=3 --cpu-max-prime=2000 run
    row 'sysbench threads' op/s ' *total number of events: *\([0-9]*\)' sysbench threads --time=3 --threads=8 run
    row 'sysbench mutex' s ' *total time: *\([0-9.]*\)s' sysbench mutex --threads=4 --mutex-locks=5000 run
    row 'sysbench memory' MB/s '.*(\([0-9.]*\) MiB\/sec).*' sysbench memory --time=3 run
}

# bandwidth OPTION...: what fio reads and writes in a second, by its terse output, which has kB in fields 7 and 48.
bandwidth() {
    fio --minimal --name=x --size=16M --time_based --runtime=2 --ioengine=psync --fallocate=none "$@" |
        awk -F ';' '{ printf "bandwidth %.3f\n", ($7 + $48) / 1000 }'
}

# fio_row PLACE NAME OPTION...
fio_row() {
    place=$1 name=$2
    shift 2
    row "fio $place, $name" MB/s 'bandwidth \([0-9.]*\)' bash "$0" bandwidth --directory="/bench/$place" "$@"
}

fio_rows() {
    for place in tmpfs disk; do
        fio_row $place 'read' --rw=read --bs=64k
        fio_row $place 'write' --rw=write --bs=64k
        fio_row $place 'random read' --rw=randread --bs=4k
        fio_row $place 'random write' --rw=randwrite --bs=4k
        fio_row $place 'synced' --rw=randwrite --bs=4k --fsync=1
    done
    for size in 4k 256k; do
        fio_row disk "direct read $size" --rw=randread --bs=$size --direct=1
        fio_row disk "direct write $size" --rw=randwrite --bs=$size --direct=1
    done
}

redis_rows() {
    redis-server --save '' --daemonize yes > /dev/null
    serves 6379
    for test in get set lpush; do
        row "redis $test" op/s "^[A-Z]*: \([0-9.]*\) requests per second.*" \
            redis-benchmark -q -n 5000 -c 20 -t "$test"
    done
    redis-cli shutdown nosave > /dev/null 2>&1
}

memcached_rows() {
    memcached -u nobody -d -l 127.0.0.1
    serves 11211
    row 'memcached set' s 'Time to set .*: *\([0-9.]*\) seconds.*' \
        memcslap --servers=127.0.0.1 --concurrency=4 --execute-number=500 --test=set
}

nginx_rows() {
    head -c 1024 /dev/zero > /var/www/html/1k
    head -c 1048576 /dev/zero > /var/www/html/1m
    nginx
    serves 80
    for size in 1k 1m; do
        row "nginx $size" op/s 'Requests\/sec: *\([0-9.]*\)' wrk -t 1 -c 8 -d 3 "http://127.0.0.1/$size"
        row "nginx $size, closing" op/s 'Requests\/sec: *\([0-9.]*\)' \
            wrk -t 1 -c 8 -d 3 -H 'Connection: close' "http://127.0.0.1/$size"
    done
    nginx -s stop
}

iperf_rows() {
    iperf3 --server --daemon
    serves 5201
    row 'iperf3 loopback' MB/s '.* \([0-9.]*\) MBytes\/sec .*receiver' iperf3 --client 127.0.0.1 --time 3 --format M
    # The host, where the one who started this guest has a server.
    row 'iperf3 to host' MB/s '.* \([0-9.]*\) MBytes\/sec .*receiver' iperf3 --client 10.0.2.2 --time 3 --format M
    row 'iperf3 from host' MB/s '.* \([0-9.]*\) MBytes\/sec .*receiver' \
        iperf3 --client 10.0.2.2 --reverse --time 3 --format M
}

postgres_rows() {
    pg_ctlcluster 15 main start
    serves 5432
    su postgres -c 'pgbench --initialize --quiet --scale=1 postgres' > /dev/null 2>&1
    row 'pgbench' op/s 'tps = \([0-9.]*\) .*' su postgres -c 'pgbench --client=4 --time=5 postgres'
    row 'pgbench reading' op/s 'tps = \([0-9.]*\) .*' su postgres -c 'pgbench --select-only --client=4 --time=5 postgres'
    pg_ctlcluster 15 main stop --mode=immediate
}

if [ "$1" = bandwidth ]; then
    shift
    bandwidth "$@"
    exit
fi
echo "# $(uname -r)"
mkdir -p /bench/tmpfs /bench/disk
mount -t tmpfs tmpfs /bench/tmpfs
mount -t ext4 /dev/vda /bench/disk
programs
tree_rows
sysbench_rows
fio_rows
redis_rows
memcached_rows
nginx_rows
iperf_rows
postgres_rows
