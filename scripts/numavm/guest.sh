# First process of the guest, part 2: the kernel's file systems, the run's own folders, the command,
# then its exit status to the host and the power off. Run by busybox, which has its tools built in.
# With --systemd it becomes systemd, one of whose services runs it again, for the command alone.
job=/run/numa-vm

# share TAG FOLDER: a folder of the host, writable.
share() {
  mkdir -p "$2"
  mount -t 9p -o rw,version=9p2000.L,trans=virtio,msize=512000,cache=mmap "$1" "$2" || fail "cannot mount $2"
}

disk() {
  /sbin/modprobe virtio_blk
  mkdir -p /mnt/disk
  mount -t ext4 /dev/vda /mnt/disk || fail "cannot mount the disk"
}

fail() {
  echo "numa-vm: $1" >/dev/console
  poweroff -f
}

# port NAME: the device that leads to the host; the kernel may still be finding it.
port() {
  while :; do
    for entry in /sys/class/virtio-ports/*; do
      read -r name <"$entry/name" && [ "$name" = "$1" ] && echo "/dev/${entry##*/}" && return
    done 2>/dev/null
    sleep 0.05
  done
}

mount_kernel_file_systems() {
  mount -t tracefs tracefs /sys/kernel/tracing
  mount -t debugfs debugfs /sys/kernel/debug
  mount -t bpf bpf /sys/fs/bpf
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
  done
  mkdir -p /dev/pts /dev/shm /run/lock
  mount -t devpts -o ptmxmode=666 devpts /dev/pts
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  ln -s /proc/self/fd /dev/fd
  ln -s /proc/self/fd/0 /dev/stdin
  ln -s /proc/self/fd/1 /dev/stdout
  ln -s /proc/self/fd/2 /dev/stderr
}

# Ends whatever the command left running, for that may hold the pipes open. Kernel threads do not mind.
end_all_but() {
  for process in /proc/[0-9]*; do
    case " 1 $$ $* " in
      *" ${process#/proc/} "*) ;;
      *) kill -KILL "${process#/proc/}" 2>/dev/null ;;
    esac
  done
}

# Runs the command and reports its status. The guest is off then.
run() {
  # Pipes, because a port can be opened only once: with them `echo >/dev/stderr` works as usual.
  mkfifo "$job/stdout" "$job/stderr"
  cat "$job/stdout" >"$(port stdout)" &
  out=$!
  cat "$job/stderr" >"$(port stderr)" &
  err=$!
  setsid /bin/sh "$job/command" </dev/null >"$job/stdout" 2>"$job/stderr" &
  wait $!
  status=$?
  end_all_but $out $err
  wait $out $err
  sync
  echo "$status" >"$(port status)"
  poweroff -f
}

# No unit of the host's is started but what systemd itself needs: theirs are for another machine.
become_systemd() {
  units=/run/systemd/system
  mkdir -p $units
  cat >$units/numa-vm.service <<END
[Unit]
DefaultDependencies=no
[Service]
ExecStart=$job/busybox sh $job/guest.sh run
Delegate=yes
KillMode=process
StandardInput=null
StandardOutput=file:/dev/console
END
  umount /sys/fs/cgroup # as systemd wants it, and it mounts it itself
  exec /lib/systemd/systemd --system --unit=numa-vm.service
}

if [ "$1" = run ]; then
  run
fi
mount_kernel_file_systems
hostname numa-vm
ip link set lo up
. "$job/setup"
if [ -e "$job/systemd" ]; then
  become_systemd
fi
run
