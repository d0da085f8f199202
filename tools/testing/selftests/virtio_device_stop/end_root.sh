#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_root.sh [swap]
#
# An agent that runs from the disk that it has stopped is killed, while memory is short, with a swap file on that disk if asked for. The
# guest lives on when the lease is over. This script itself runs from memory. Its device is "root".

DEVICE=root
. ./functions.sh

begins_to_wait() {
	waiting_at_least 1
}

test_agent_is_killed() {
	find_device
	mkdir /newroot
	mount -t ext4 "/dev/$DISK" /newroot || fail "no root file system"
	for folder in proc sys dev tmp; do
		mount -o bind "/$folder" "/newroot/$folder" || fail "can't mount $folder"
	done
	if [ "$1" = swap ]; then
		dd if=/dev/zero of=/newroot/swap bs=1M count=96 2>/dev/null
		chmod 600 /newroot/swap
		mkswap /newroot/swap >/dev/null
		swapon /newroot/swap || fail "no swap"
	fi
	head -c 30M /dev/urandom >/newroot/data
	checksum=$(sha256sum </newroot/data)
	sync
	echo 15000 >"$STOP/lease_ms"
	# shellcheck disable=SC2016 # the agent's
	chroot /newroot /bin/sh -c 'echo stop >"$1" && echo stopped >/tmp/agent && exec tail -f /dev/null' _ "$STOP/state" &
	agent=$!
	wait_until test -s /tmp/agent
	expect "state" "$(state)" stopped
	kill -9 $agent
	wait $agent
	# The page cache goes: whatever is run from the disk is read from it.
	echo 3 >/proc/sys/vm/drop_caches
	chroot /newroot /bin/sha256sum /data >/tmp/sum &
	# More dirty pages than may be, and more memory than there is, if some of it can be swapped.
	chroot /newroot /bin/dd if=/dev/zero of=/dirty bs=1M count=60 2>/tmp/dirty &
	room=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
	if [ "$1" = swap ]; then
		room=$((room + 40))
	else
		room=$((room - 40))
	fi
	mount -t tmpfs -o size=100% tmpfs /mnt
	dd if=/dev/zero of=/mnt/fill bs=1M count=$room 2>/tmp/fill &
	wait_until begins_to_wait
	wait_until stat_is lease_expiries 1
	expect "reason" "$(cat "$STOP/reason")" lease_expired
	wait
	rm /mnt/fill
	expect "what was read" "$(cut -d ' ' -f 1 /tmp/sum)" "${checksum%% *}"
	expect "what was written" "$(chroot /newroot /bin/stat -c %s /dirty)" $((60 * 1024 * 1024))
	if [ "$1" = swap ]; then
		grep -q '^pswpout 0$' /proc/vmstat && fail "nothing was swapped out"
		swapoff /newroot/swap || fail "can't swap in"
	fi
	# It works as before.
	stop
	resume
	sync
	wait_until nobody_hangs
	expect "state" "$(state)" running
	umount -r /newroot/tmp /newroot/dev /newroot/sys /newroot/proc /newroot || fail "can't unmount"
	no_breach
	dmesg_is_clean || fail "the kernel has complained"
}

load_module
mkdir -p /mnt
if (test_agent_is_killed "$1"); then echo "ok agent_is_killed"; else echo "not ok agent_is_killed"; fi
