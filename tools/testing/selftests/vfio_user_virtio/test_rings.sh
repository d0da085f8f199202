#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# What the virtqueues of a device can do beyond the usual, with the kernel's own drivers: "resizable" is a network card whose
# virtqueues can be reset one by one, "doorbells" a disk that is notified with more than the virtqueue's index. "packed" and
# "packed_nic" have packed ones.

. ./functions.sh

DEVICE=resizable

# accepted BIT: the driver has accepted the feature.
accepted() {
	expect "feature $1" $(($(device_get features) >> $1 & 1)) 1
}

# find_nic MAC: the interface that has it is NIC, and up.
find_nic() {
	for NIC in /sys/class/net/*; do
		! holds "$NIC/address" "$1" || break
	done
	NIC=${NIC##*/}
	holds "/sys/class/net/$NIC/address" "$1" || fail "no network interface $1"
	ip link set "$NIC" up
	wait_until holds "/sys/class/net/$NIC/carrier" 1
}

clean_up() {
	killall -q -9 fio
	device_do behave
	find_nic 02:00:00:00:00:21
}

all_come_back() {
	frames "$NIC" 1000 >/tmp/frames || fail "$(cat /tmp/frames)"
	expect "frames" "$(cat /tmp/frames)" "sent=1000 received=1000 lost=0 duplicated=0 reordered=0 unknown=0"
}

# resize ENTRIES: both virtqueues get other rings, of that many entries.
resize() {
	resets=$(device_get counters.queue_resets)
	/usr/sbin/ethtool -G "$NIC" rx "$1" tx "$1" || fail "no rings of $1"
	expect "resets of virtqueues" "$(device_get counters.queue_resets)" $((resets + 2))
}

test_virtqueues_are_reset_and_laid_out_anew() {
	accepted 40
	device_resets=$(device_get counters.resets)
	for entries in 64 256 32 128; do
		resize $entries
		all_come_back
	done
	expect "resets of the device" "$(device_get counters.resets)" "$device_resets"
}

# What the device has got of a virtqueue that is reset is dropped, and not given back into the new rings.
test_virtqueues_are_reset_in_the_middle_of_it() {
	for entries in 32 128; do
		device_set io_delay_us=20000
		frames "$NIC" 1000 --patience 2 >/tmp/lost &
		wait_until in_flight_at_least 1
		resize $entries
		wait $!
		device_set io_delay_us=0
		all_come_back
	done
}

test_notifications_carry_data() {
	DEVICE=doorbells
	DISK=$(disk $DEVICE)
	accepted 38
	start_fio
	more_complete
	stop_fio
	io_works
	[ "$(device_get counters.notifications)" -gt 100 ] || fail "too few notifications"
	expect "notifications that were lost" "$(device_get counters.notifications_lost)" 0
}

test_packed_disk() {
	DEVICE=packed
	DISK=$(disk $DEVICE)
	accepted 34
	for order in taken reversed shuffled; do
		device_set io_order=$order io_delay_us=1000
		start_fio
		more_complete
		stop_fio
	done
	device_set io_delay_us=0
	io_works
}

test_packed_network_card() {
	DEVICE=packed_nic
	accepted 34
	find_nic 02:00:00:00:00:22
	all_come_back
	resize 64
	all_come_back
}

run_tests test_virtqueues_are_reset_and_laid_out_anew test_virtqueues_are_reset_in_the_middle_of_it test_notifications_carry_data \
	test_packed_disk test_packed_network_card
