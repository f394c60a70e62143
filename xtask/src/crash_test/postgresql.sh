failed() { echo "failed $*"; tail -n 3 /tmp/postgres.log >&2; exit 1; }
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
server() { runuser -u postgres -- env PATH="$PATH" "$@"; }
query() { psql -h /tmp -U postgres -At "$@" postgres; }
mkdir -p /mnt && mount -t ext4 -o data=$1,commit=1 /dev/vda /mnt || failed mount
if [ ! -d /mnt/data ]; then
    mkdir /mnt/data && chown postgres /mnt/data
    server initdb -D /mnt/data -A trust --wal-segsize=1 --no-sync >/tmp/initdb.log 2>&1 || failed initdb
fi
rm -f /mnt/data/postmaster.pid
settings='-c listen_addresses= -c unix_socket_directories=/tmp -c shared_buffers=8MB -c max_wal_size=8MB -c min_wal_size=2MB'
server pg_ctl -D /mnt/data -w -t 100 -l /tmp/postgres.log -o "$settings" start >/dev/null || failed start
query -qc 'create table if not exists t (id int primary key, text text)' -c 'create extension if not exists amcheck' 2>/dev/null
found=$(query -c "select count(*) from t where id <= $3")
[ "$found" = "$3" ] || failed "$found rows of $3"
query -c "select bt_index_check('t_pkey', true)" >/dev/null || failed index
if [ "$4" = check ]; then
    server pg_ctl -D /mnt/data -w -m fast stop >/dev/null || failed stop
    umount /mnt || failed umount
    exit
fi
n=$(query -c 'select coalesce(max(id), 0) from t')
while n=$((n+1)); do
    echo "insert into t values ($n, repeat('$n', $((n*37%900)))) returning 'ack ' || id;"
    echo "update t set text = text || ' again' where id = $n / 2;"
done | query -q
