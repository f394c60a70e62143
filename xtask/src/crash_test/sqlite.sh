mkdir -p /mnt && mount -t ext4 -o data=$1,commit=1 /dev/vda /mnt || { echo "failed mount"; exit 1; }
exec python3 -c '
import sqlite3, sys
turn, promised = int(sys.argv[1]), int(sys.argv[2])
db = sqlite3.connect("/mnt/db", isolation_level=None)
first = lambda query: db.execute(query).fetchone()[0]
first("pragma journal_mode = " + ["delete", "wal", "truncate"][turn % 3])
db.execute("pragma synchronous = full")
db.execute("create table if not exists t (id integer primary key, text text)")
if first("pragma integrity_check") != "ok":
    print("failed integrity", flush=True)
if first(f"select count(*) from t where id <= {promised}") != promised:
    print("failed count", flush=True)
n = first("select coalesce(max(id), 0) from t")
while True:
    n += 1
    db.execute("begin")
    db.execute("insert into t values (?, ?)", (n, str(n) * (n * 37 % 900)))
    db.execute("update t set text = text || ? where id = ?", (" again", n // 2))
    db.execute("commit")
    print("ack", n, flush=True)
' "$2" "$3"
