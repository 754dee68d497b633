#!/bin/busybox sh
# First process of the guest, part 1: from the initrd to a root that is the host's files, read-only,
# below an overlay in memory. busybox runs mount, insmod and the like itself, through /proc/self/exe.
set -e
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=755 tmpfs /run
for module in /modules/*; do insmod "$module"; done
# cache=loose keeps the host's files in the guest's page cache: nobody else changes what it sees.
mount -t 9p -o ro,version=9p2000.L,trans=virtio,msize=512000,cache=loose root /lower
mkdir -p /run/numa-vm /run/overlay
mount -t tmpfs -o mode=755 tmpfs /run/overlay
mkdir /run/overlay/upper /run/overlay/work
mount -t overlay -o lowerdir=/lower,upperdir=/run/overlay/upper,workdir=/run/overlay/work root /root
# Bound from below the overlay: there it is seen even when it is in a folder that is hidden below.
IFS= read -r modules </job/modules
mkdir -p "/root/lib/modules/$(uname -r)"
mount --bind "/lower$modules" "/root/lib/modules/$(uname -r)"
cp /bin/busybox /job/* /run/numa-vm
for folder in sys dev run proc; do # proc last: busybox needs it
  mkdir -p "/root/$folder"
  mount --move "/$folder" "/root/$folder"
done
exec /bin/busybox switch_root /root /run/numa-vm/busybox sh /run/numa-vm/guest.sh
