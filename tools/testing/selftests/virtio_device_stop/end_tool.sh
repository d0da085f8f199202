#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_tool.sh [swap]
#
# virtio-stop stops the disk that it runs from, and that its command lies on. Nothing of the disk stays in memory that can be dropped,
# memory is short, and if asked for there is a swap file on that disk. It renews its lease, and resumes the disk all the same. This
# script itself runs from memory. Its device is "root".

DEVICE=root
. ./functions.sh

PATIENCE=300

begins_to_wait() {
	read -r _ _ process_state _ <"/proc/$reader/stat" && [ "$process_state" = D ]
}

older_than() {
	now
	[ $((NOW - begin)) -ge "$1" ]
}

# stop_under_pressure LEASE_MS: false if the lease was over before it could be renewed: on a slow machine.
stop_under_pressure() {
	echo "# a lease of $1 ms"
	rm -f /tmp/end /tmp/out /mnt/fill
	expiries=$(stat lease_expiries)
	mkfifo /tmp/end
	begin=
	# The command is another name of busybox, on the disk, and ends when it has read all.
	chroot /newroot /bin/virtio-stop --json run --lease "$1" $FREEZE / -- /bin/cat /tmp/end >/tmp/out 2>/tmp/err &
	tool=$!
	exec 5>/tmp/end
	wait_until state_is stopped
	now
	begin=$NOW
	echo 3 >/proc/sys/vm/drop_caches
	chroot /newroot /bin/sha256sum /data >/tmp/sum &
	reader=$!
	# More dirty pages than may be, and more memory than there is, if some of it can be swapped.
	chroot /newroot /bin/dd if=/dev/zero of=/dirty bs=1M count=60 2>/tmp/dirty &
	wait_until begins_to_wait
	room=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
	if [ "$SWAP" ]; then
		room=$((room + 40))
	else
		room=$((room - 40))
	fi
	dd if=/dev/zero of=/mnt/fill bs=1M count=$room 2>/tmp/fill &
	# Renewed, at least once.
	wait_until older_than $(($1 + $1 / 2))
	echo "the end" >&5
	exec 5>&-
	status=0
	wait $tool || status=$?
	echo "# it ends with $status: $(cat /tmp/out /tmp/err)"
	wait
	expect "expired leases" "$(stat lease_expiries)" "$expiries"
	expect "its status" $status 0
	expect "what its command says" "$(head -n 1 /tmp/out)" "the end"
	grep -q '"still":true' /tmp/out || fail "it did not stand still"
}

test_tool_and_its_command_on_the_disk() {
	SWAP=$1
	FREEZE=
	# What is swapped out is written past the file system. What is frozen, nobody can make dirty.
	[ "$SWAP" ] || FREEZE=--freeze
	find_device
	mkdir /newroot
	mount -t ext4 "/dev/$DISK" /newroot || fail "no root file system"
	for folder in proc sys dev tmp; do
		mount -o bind "/$folder" "/newroot/$folder" || fail "can't mount $folder"
	done
	if [ "$SWAP" ]; then
		dd if=/dev/zero of=/newroot/swap bs=1M count=96 2>/dev/null
		chmod 600 /newroot/swap
		mkswap /newroot/swap >/dev/null
		swapon /newroot/swap || fail "no swap"
	fi
	dd if=/dev/urandom of=/newroot/data bs=1M count=4 2>/dev/null || fail "no data"
	checksum=$(sha256sum </newroot/data)
	sync
	mount -t tmpfs -o size=100% tmpfs /mnt
	# What swaps out takes from what is kept free, for as long as that waits for the disk.
	echo 16384 >/proc/sys/vm/min_free_kbytes
	stop_under_pressure 20000
	rm /mnt/fill
	expect "what was read" "$(cut -d ' ' -f 1 /tmp/sum)" "${checksum%% *}"
	expect "what was written" "$(chroot /newroot /bin/stat -c %s /dirty)" $((60 * 1024 * 1024))
	if [ "$SWAP" ]; then
		! grep -q '^pswpout 0$' /proc/vmstat || fail "nothing was swapped out"
		swapoff /newroot/swap || fail "can't swap in"
	fi
	sync
	wait_until nobody_hangs
	expect "state" "$(state)" running
	umount -r /newroot/tmp /newroot/dev /newroot/sys /newroot/proc /newroot || fail "can't unmount"
	no_breach
	dmesg_is_clean || fail "the kernel has complained"
}

load_module
mkdir -p /mnt
if (test_tool_and_its_command_on_the_disk "$1"); then echo "ok tool_on_the_disk"; else echo "not ok tool_on_the_disk"; fi
