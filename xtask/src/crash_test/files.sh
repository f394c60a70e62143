mkdir -p /mnt && mount -t ext4 -o data=$1,commit=1 /dev/vda /mnt && cd /mnt || { echo "failed mount"; exit 1; }
churn() {
    i=0
    rm -rf churn
    while :; do
        i=$((i+1)); d=churn/$i
        mkdir -p $d; dd if=/dev/urandom of=$d/a bs=4k count=$((i%40)) 2>/dev/null
        for n in 1 2 3 4 5 6 7 8; do echo $n$i >$d/n$n; done
        truncate -s $((i*37%9000)) $d/a; mv $d/n1 $d/m1; ln $d/m1 $d/l; ln -s a $d/s; mv $d/n2 $d/n3; rm $d/n4
        [ $i -gt 4 ] && rm -rf churn/$((i-4))
    done
}
churn &
i=0
while :; do
    i=$((i+1))
    echo "round $2 file $i $i $i" | dd of=f$2.$i conv=fsync 2>/dev/null || { echo "failed write"; exit 1; }
    echo "ack $i"
    if [ $((i%3)) = 0 ]; then
        mv f$2.$i g$2.$i; echo $i | dd of=marker conv=fsync 2>/dev/null; echo "moved $i"
    fi
done
