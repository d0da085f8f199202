#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_root.sh [swap]
#
# An agent that runs from the disk that it has stopped is killed, while memory is short, with a swap file on that disk if asked for. The
# guest lives on when the lease is over. And virtio-stop, which runs from the disk likewise, goes on, and resumes it in the end. This
# script itself runs from memory. Its device is "root".

DEVICE=root
. ./functions.sh

# A lease has to end.
PATIENCE=240

# stop_and_die LEASE_MS: an agent stops the disk that it runs from, and is killed. Then memory is short. False if the lease was over
# before anybody waited for the disk: on a slow machine.
stop_and_die() {
	echo "# a stop for $1 ms"
	rm -f /tmp/agent
	in_time=
	expiries=$(stat lease_expiries)
	echo "$1" >"$STOP/lease_ms"
	# shellcheck disable=SC2016 # the agent's
	chroot /newroot /bin/sh -c 'echo stop >"$1" && echo stopped >/tmp/agent && exec tail -f /dev/null' _ "$STOP/state" &
	agent=$!
	wait_until test -s /tmp/agent
	kill -9 $agent
	wait $agent
	make_memory_short
	wait
	echo "# ... nobody waits any more"
	[ "$in_time" ]
}

# swapped: how much is swapped out, in KiB. The debug kernel does not count what it writes.
swapped() {
	awk 'NR == 2 { print $4 }' /proc/swaps
}

# Of those who want something of the disk: a reader, a writer, and whoever needs memory.
make_memory_short() {
	rm -f /mnt/fill
	swapped_before=$(swapped)
	# The page cache goes: whatever is run from the disk is read from it.
	echo 3 >/proc/sys/vm/drop_caches
	chroot /newroot /bin/sha256sum /data >/tmp/sum &
	reader=$!
	# More dirty pages than may be, and more memory than there is, if some of it can be swapped.
	chroot /newroot /bin/dd if=/dev/zero of=/dirty bs=1M count=60 2>/tmp/dirty &
	# Before memory is short: later, whoever looks may have to wait like everybody else.
	wait_until begins_to_wait
	room=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
	if [ "$SWAP" ]; then
		room=$((room + 40))
	else
		room=$((room - 40))
	fi
	# Pages of zeros are not written when they are swapped out.
	yes "$line" | dd iflag=fullblock of=/mnt/fill bs=1M count=$room 2>/tmp/fill &
}

# Or the lease is over. Without a new process, which takes long under emulation.
begins_to_wait() {
	stat_is lease_expiries "$expiries" || return 0
	read -r _ _ process_state _ <"/proc/$reader/stat" && [ "$process_state" = D ] && in_time=yes
}

prepare() {
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
	line=$(printf '%1023s' '' | tr ' ' s)
	# What swaps out takes from what is kept free, for as long as that waits for the disk.
	echo 16384 >/proc/sys/vm/min_free_kbytes
}

# Everything that had to wait has been done.
nothing_is_lost() {
	[ ! "$SWAP" ] || [ "$(swapped)" -gt "$swapped_before" ] || fail "nothing was swapped out"
	rm /mnt/fill
	expect "what was read" "$(cut -d ' ' -f 1 /tmp/sum)" "${checksum%% *}"
	expect "what was written" "$(chroot /newroot /bin/stat -c %s /dirty)" $((60 * 1024 * 1024))
}

test_agent_is_killed() {
	# A slow machine is given a longer one.
	stop_and_die 15000 || stop_and_die 60000 || stop_and_die 150000 || fail "nobody has waited"
	expect "expired leases" "$(stat lease_expiries)" $((expiries + 1))
	expect "reason" "$(cat "$STOP/reason")" lease_expired
	nothing_is_lost
}

# Its COMMAND takes longer than its lease: without renewals it would not stand still. Nobody here could end it: to begin a process may
# need memory.
test_tool_runs_from_what_it_stops() {
	expiries=$(stat lease_expiries)
	stops=$(stat stops)
	in_time=
	# What is swapped out is written past the file system.
	freeze=
	[ "$SWAP" ] || freeze=--freeze
	# shellcheck disable=SC2086 # a word, or none
	chroot /newroot /bin/virtio-stop run --lease 10000 $freeze / -- /bin/busybox sleep 35 >/tmp/tool 2>&1 &
	tool=$!
	wait_until stat_is stops $((stops + 1))
	make_memory_short
	if wait $tool; then status=0; else status=$?; fi
	wait
	sed 's/^/# /' /tmp/tool
	expect "status" $status 0
	grep -q '^virtio[0-9]* *stood still' /tmp/tool || fail "it did not stand still"
	expect "somebody has waited" "$in_time" yes
	expect "expired leases" "$(stat lease_expiries)" "$expiries"
	nothing_is_lost
}

finish() {
	[ ! "$SWAP" ] || swapoff /newroot/swap || fail "can't swap in"
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

# try TEST: says how it has ended.
try() {
	if ("test_$1") && (no_breach) && dmesg_is_clean; then echo "ok $1"; else echo "not ok $1"; fi
}

load_module
mkdir -p /mnt
SWAP=$1
prepare
try agent_is_killed
try tool_runs_from_what_it_stops
if (finish); then echo "ok finish"; else echo "not ok finish"; fi
