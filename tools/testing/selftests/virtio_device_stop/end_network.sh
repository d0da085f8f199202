#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_network.sh CYCLES
#
# A network card with a pair of virtqueues for each processor is stopped and resumed while it is busy in both directions, its
# link changes, and its interface is treated in every way. Its name is "nic".

DEVICE=nic
. ./functions.sh

CYCLES=$1
PATIENCE=240
PEER=10.0.1.1

find_nic() {
	find_type 1
	NIC=$(echo "/sys/bus/virtio/devices/$VDEV/net/"*)
	NIC=${NIC##*/}
}

ip() {
	/usr/sbin/ip "$@"
}

nic_is_up() {
	holds "/sys/class/net/$NIC/operstate" up
}

bring_up() {
	ip link set "$NIC" up
	ip addr replace 10.0.1.2/24 dev "$NIC"
	wait_until nic_is_up
}

# What the interface has dropped by its own account.
dropped() {
	cat "/sys/class/net/$NIC/statistics/tx_dropped"
}

# The traffic: each part goes on until it is enough, and writes to a file if anything is wrong.
numbered_frames() {
	while [ ! -e /tmp/enough ]; do
		frames_are_all_back 500 || return
	done
}

# frames_are_all_back COUNT: in whatever order, since they take several ways.
frames_are_all_back() {
	frames "$NIC" "$1" --patience 120 >/tmp/frames 2>&1
	grep -q "received=$1 lost=0 duplicated=0 .*unknown=0" /tmp/frames
}

echoed_bytes() {
	while [ ! -e /tmp/enough ]; do
		# shellcheck disable=SC2094 # nothing is written
		nc $PEER 7 </tmp/data | cmp - /tmp/data || return
		echo >>/tmp/echoed
	done 2>/tmp/echo
}

# echoed_from CPU: by the pair of that processor, in a session after another.
echoed_from() {
	while [ ! -e /tmp/enough ]; do
		# shellcheck disable=SC2094 # nothing is written
		taskset -c "$1" nc $PEER 7 </tmp/data | cmp - /tmp/data || return
		echo >>"/tmp/echoed_from_$1"
	done 2>>/tmp/echo
}

# Each ping is sent as soon as one has come back, and waited for in the end.
flood() {
	while [ ! -e /tmp/enough ]; do
		ping -q -A -c 200 -W $PATIENCE $PEER >/tmp/ping 2>&1
		grep -q '^200 packets transmitted, 200 packets received' /tmp/ping || return
	done
}

start() {
	rm -f /tmp/enough /tmp/echoed
	for part; do
		$part &
		parts="$parts $!"
	done
}

end() {
	touch /tmp/enough
	for part in $parts; do
		wait_until has_ended "$part"
		wait "$part" || fail "what was sent has not come back: $(cat /tmp/frames /tmp/echo /tmp/ping)
# by the interface: $(grep "$NIC" /proc/net/dev)
# by its queues: $(tc -s qdisc show dev "$NIC" | xargs)
# by the card: $(device_get of_type)"
	done
	parts=
}

# more_is_sent THAN
more_is_sent() {
	[ "$(device_get of_type.transmitted)" -gt "$1" ]
}

# cycle COMMAND...: a stop and a resume while there is traffic. The command is run before, between, or after them.
cycle() {
	sent=$(device_get of_type.transmitted)
	[ $((cycles % 3)) != 0 ] || "$@"
	stop_and_try_again
	[ $((cycles % 3)) != 1 ] || "$@"
	expect "resume" "$(store "$STOP/state" resume)" ok
	[ $((cycles % 3)) != 2 ] || "$@"
	cycles=$((cycles + 1))
}

# Somebody may be configuring the interface.
stop_and_try_again() {
	tries=0
	while said=$(store "$STOP/state" stop) && [ "$said" = "$EBUSY" ] && [ $tries -lt 100 ]; do
		tries=$((tries + 1))
	done
	expect "stop" "$said" ok
}

nothing_is_dropped() {
	expect "frames that the interface has dropped" "$(dropped)" 0
	expect "frames that the card has dropped" "$(device_get of_type.overflowed)" 0
}

test_load() {
	expect "pairs" "$(device_get of_type.pairs)" "$(nproc)"
	start numbered_frames echoed_bytes flood
	cycles=0
	while [ $cycles -lt "$CYCLES" ]; do
		cycle :
		wait_until more_is_sent "$sent"
		[ $((cycles % 5)) != 0 ] || echo "# $cycles of $CYCLES cycles"
	done
	end
	nothing_is_dropped
	echo "# $(device_get of_type.transmitted) frames sent, $(wc -l </tmp/echoed) times $(wc -c </tmp/data) bytes echoed"
}

# frames_of PAIR: that have come, and that have gone.
frames_of() {
	echo "$(device_get "of_type.by_pair.$1.transmitted") $(device_get "of_type.by_pair.$1.received")"
}

# Whether both are more.
are_more() {
	[ "${2% *}" -gt "${1% *}" ] && [ "${2#* }" -gt "${1#* }" ]
}

# A session from each processor at the same time, over stops and resumes: all pairs are busy, in both directions.
test_pairs() {
	rm -f /tmp/echoed_from_*
	pairs=$(seq 0 $(($(nproc) - 1)))
	for pair in $pairs; do
		frames_of "$pair" >"/tmp/pair_$pair"
	done
	rm -f /tmp/enough
	for pair in $pairs; do
		echoed_from "$pair" &
		parts="$parts $!"
	done
	cycles=0
	while [ $cycles -lt 10 ]; do
		cycle :
		wait_until more_is_sent "$sent"
	done
	for pair in $pairs; do
		wait_until test -s "/tmp/echoed_from_$pair"
	done
	end
	nothing_is_dropped
	for pair in $pairs; do
		are_more "$(cat "/tmp/pair_$pair")" "$(frames_of "$pair")" || fail "pair $pair was idle: $(device_get of_type.by_pair)"
	done
	echo "# $(cat /tmp/echoed_from_* | wc -l) sessions by $(nproc) pairs: $(device_get of_type.by_pair)"
}

change_link() {
	device_do link:down
	device_do link:up
}

# What was sent without a link is lost, as the interface counts it: TCP sends it again, later and later.
test_link_changes() {
	[ "$CYCLES" -le 40 ] || CYCLES=40
	start echoed_bytes
	cycles=0
	while [ $cycles -lt "$CYCLES" ]; do
		cycle change_link
	done
	wait_until nic_is_up
	wait_until test -s /tmp/echoed
	end
}

disturb() {
	while [ ! -e /tmp/enough ]; do
		"$@"
	done >/dev/null 2>&1
}

# Not all the time: a stop needs the interface's own lock for a moment.
turn() {
	for mode in 1 0; do
		echo $mode >"$1"
		usleep 50000
	done
}

# Those that don't look whether an interface is detached.
test_disturbances() {
	before=$(dropped)
	echo 50 >/proc/sys/net/core/busy_poll
	echo 50 >/proc/sys/net/core/busy_read
	start echoed_bytes
	disturb turn "/sys/class/net/$NIC/threaded" &
	disturbers=$!
	disturb ip link set "$NIC" promisc on &
	disturbers="$disturbers $!"
	disturb ip link set "$NIC" promisc off &
	disturbers="$disturbers $!"
	cycles=0
	while [ $cycles -lt "$CYCLES" ]; do
		cycle :
		[ $((cycles % 5)) != 0 ] || echo "# $cycles of $CYCLES cycles, disturbed"
	done
	touch /tmp/enough
	# shellcheck disable=SC2086 # a word a process
	wait $disturbers
	echo "# nobody disturbs any more"
	end
	ip link set "$NIC" promisc off
	expect "frames that the interface has dropped" "$(dropped)" "$before"
}

# Native XDP is refused meanwhile: the driver can't tell its device. One with a single pair of virtqueues has nothing to be told.
test_native_xdp() {
	if ! ./attach_xdp "$NIC" native; then
		echo "# Native XDP is refused by this kernel, whatever the device does: it is tested on the stock kernel."
		return
	fi
	stop
	if ./attach_xdp "$NIC" native 2>/tmp/xdp; then attached=0; else attached=1; fi
	expect "attached to a stopped device" $attached "$(($(device_get of_type.pairs) > 1))"
	resume
	frames_are_all_back 200 || fail "$(cat /tmp/frames)"
}

# bind_xsk: an AF_XDP socket is bound to the first queue, and sends what it can until end_xsk.
bind_xsk() {
	wait_until xsk_is_bound
}

# The kernel lets go of the one before some time after it was closed.
xsk_is_bound() {
	rm -f /tmp/xsk /tmp/xsk.in
	mkfifo /tmp/xsk.in
	./bind_xsk "$NIC" 0 </tmp/xsk.in >/tmp/xsk 2>&1 &
	XSK=$!
	exec 7>/tmp/xsk.in
	wait_until test -s /tmp/xsk
	if grep -q "$EBUSY" /tmp/xsk; then
		end_xsk
		return 1
	fi
}

end_xsk() {
	exec 7>&-
	wait "$XSK"
}

# What user space has given the driver can't be taken back from a suspended device: such an interface is not stopped. One that is
# stopped may get a socket, which waits.
test_xsk() {
	if ! [ -e /proc/net/xdp ] && ! (bind_xsk && end_xsk); then
		echo "# AF_XDP is refused by this kernel, whatever the device does: it is tested on the stock kernel."
		return
	fi
	bind_xsk
	expect "mode" "$(cat /tmp/xsk)" copy
	sent=$(device_get of_type.transmitted)
	wait_until more_is_sent "$sent"
	if suspends; then
		echo 300 >"$STOP/timeout_ms"
		expect "stop" "$(store "$STOP/state" stop)" "$EBUSY"
		expect "state" "$(state)" running
		echo 600000 >"$STOP/timeout_ms"
	else
		stop
		resume
	fi
	wait_until more_is_sent "$(device_get of_type.transmitted)"
	end_xsk || fail "$(cat /tmp/xsk)"
	cycles=0
	while [ $cycles -lt 6 ]; do
		stop_and_try_again
		bind_xsk
		[ $((cycles % 2)) != 0 ] || end_xsk || fail "$(cat /tmp/xsk)"
		expect "resume" "$(store "$STOP/state" resume)" ok
		sent=$(device_get of_type.transmitted)
		if [ $((cycles % 2)) != 0 ]; then
			expect "mode" "$(cat /tmp/xsk)" copy
			wait_until more_is_sent "$sent"
			end_xsk || fail "$(cat /tmp/xsk)"
		fi
		cycles=$((cycles + 1))
	done
	frames_are_all_back 200 || fail "$(cat /tmp/frames)"
}

say_much() {
	while [ ! -e /tmp/enough ]; do
		echo "<1>netpoll sends what is said" >/dev/kmsg
	done
}

# The kernel itself sends, from wherever it is, and polls the interface for that.
test_netpoll() {
	if ! modprobe netconsole "netconsole=@10.0.1.2/$NIC,@$PEER/ff:ff:ff:ff:ff:ff" 2>/tmp/netconsole; then
		echo "# This kernel has no netconsole: it is tested on the stock kernel."
		return
	fi
	sent=$(device_get of_type.transmitted)
	start say_much echoed_bytes
	wait_until more_is_sent "$sent"
	cycles=0
	while [ $cycles -lt 10 ]; do
		cycle :
		wait_until more_is_sent "$sent"
	done
	end
	rmmod netconsole
	frames_are_all_back 200 || fail "$(cat /tmp/frames)"
}

# elsewhere: a task in another network namespace.
elsewhere() {
	unshare -n tail -f /dev/null &
	ELSEWHERE=$!
	wait_until is_elsewhere
}

is_elsewhere() {
	[ "$(readlink /proc/"$ELSEWHERE"/ns/net)" != "$(readlink /proc/self/ns/net)" ]
}

nic_is_here() {
	[ -d "/sys/class/net/$NIC" ]
}

nic_is_away() {
	! nic_is_here
}

test_moved_and_renamed_while_stopped() {
	stop
	ip link set "$NIC" down
	ip link set "$NIC" name moved || fail "can't be renamed"
	NIC=moved
	if [ ! -e /proc/self/ns/net ]; then
		echo "# This kernel has no network namespaces: a move is tested on the stock kernel."
		resume
		bring_up
		frames_are_all_back 200 || fail "$(cat /tmp/frames)"
		return
	fi
	elsewhere
	ip link set "$NIC" netns "$ELSEWHERE" || fail "can't be moved"
	wait_until nic_is_away
	resume
	# It comes back when the namespace ends.
	kill "$ELSEWHERE"
	wait_until nic_is_here
	bring_up
	stop
	elsewhere
	ip link set "$NIC" netns "$ELSEWHERE" || fail "can't be moved while it is up"
	kill "$ELSEWHERE"
	wait_until nic_is_here
	resume
	bring_up
	frames_are_all_back 200 || fail "$(cat /tmp/frames)"
}

load_module
modprobe virtio_net
find_nic
bring_up
echo 600000 >"$STOP/timeout_ms"
echo 600000 >"$STOP/lease_ms"
# Not more than the other end can keep: nc does not read while it waits to write.
dd if=/dev/urandom of=/tmp/data bs=1k count=64 2>/dev/null
for test in load pairs link_changes disturbances native_xdp xsk netpoll moved_and_renamed_while_stopped; do
	if ("test_$test") && (no_breach) && (wait_until nobody_hangs) && dmesg_is_clean; then
		echo "ok $test"
	else
		echo "not ok $test"
		store "$STOP/state" resume >/dev/null
	fi
	find_nic
done
