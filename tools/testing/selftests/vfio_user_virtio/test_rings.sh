#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# What the virtqueues of a device can do beyond the usual, with the kernel's own drivers: "resizable" is a network card whose
# virtqueues can be reset one by one, "doorbells" a disk that is notified with more than the virtqueue's index.

. ./functions.sh

DEVICE=resizable
MAC=02:00:00:00:00:21

# accepted BIT: the driver has accepted the feature.
accepted() {
	expect "feature $1" $(($(device_get features) >> $1 & 1)) 1
}

clean_up() {
	killall -q -9 fio
	device_do behave
	for NIC in /sys/class/net/*; do
		! holds "$NIC/address" "$MAC" || break
	done
	NIC=${NIC##*/}
	holds "/sys/class/net/$NIC/address" "$MAC" || fail "no network interface $MAC"
	ip link set "$NIC" up
	wait_until holds "/sys/class/net/$NIC/carrier" 1
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

run_tests test_virtqueues_are_reset_and_laid_out_anew test_virtqueues_are_reset_in_the_middle_of_it test_notifications_carry_data
