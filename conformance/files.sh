#!/bin/sh
# An item of the suite `files`: PLACE COMMAND. Runs the command in the top folder of a new file system, and has e2fsck look at what it left on a disk.
place=$1 command=$2

verified() {
    fio --name=x --verify=crc32c --verify_fatal=1 --output=/dev/null "$@"
}

stress() {
    stress-ng --verify --timeout 1 --temp-path . "$@"
}

# What an item before this one left mounted when it took too long.
while mountpoint -q /mnt; do
    umount /mnt || exit 1
done
case $place in
disk) mke2fs -q -F -t ext4 /dev/vda && mount -t ext4 /dev/vda /mnt || exit 1 ;;
tmpfs) mount -t tmpfs tmpfs /mnt || exit 1 ;;
esac

(cd /mnt && eval "$command")
status=$?
umount /mnt || exit 1
if [ "$place" = disk ]; then
    e2fsck -fn /dev/vda >&2 || exit 1
fi
exit $status
