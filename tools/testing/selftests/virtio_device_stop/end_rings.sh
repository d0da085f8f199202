#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_rings.sh CYCLES
#
# A disk and a network card whose virtqueues are packed, and who are notified with data, are stopped and resumed while they are busy.

DEVICE=packed
. ./functions.sh

PATIENCE=240
CYCLES=$1

# accepted BIT: the driver has accepted the feature.
accepted() {
	expect "feature $1" $(($(device_get features) >> $1 & 1)) 1
}

packed_and_notified_with_data() {
	accepted 34
	accepted 38
}

test_packed_disk() {
	packed_and_notified_with_data
	device_set io_order=shuffled io_delay_us=500
	start_fio
	cycles=0
	while [ $cycles -lt "$CYCLES" ]; do
		stop
		expect "requests in flight" "$(device_get counters.requests.in_flight)" 0
		resume
		more_complete
		cycles=$((cycles + 1))
	done
	stop_fio
	device_set io_delay_us=0
	io_works
	expect "requests taken while stopped" "$(device_get counters.requests.taken_while_stopped)" 0
	expect "notifications that were lost" "$(device_get counters.notifications_lost)" 0
}

numbered_frames() {
	while [ ! -e /tmp/enough ]; do
		frames "$NIC" 500 --patience 120 >/tmp/frames 2>&1 || return
		grep -q "received=500 lost=0 duplicated=0 .*unknown=0" /tmp/frames || return
		echo >>/tmp/rounds
	done
}

more_is_sent() {
	[ "$(device_get of_type.transmitted)" -gt "$1" ]
}

test_packed_nic() {
	DEVICE=nic
	find_type 1
	NIC=$(echo "/sys/bus/virtio/devices/$VDEV/net/"*)
	NIC=${NIC##*/}
	packed_and_notified_with_data
	ip link set "$NIC" up
	wait_until holds "/sys/class/net/$NIC/operstate" up
	rm -f /tmp/enough
	numbered_frames &
	traffic=$!
	cycles=0
	while [ $cycles -lt "$CYCLES" ]; do
		sent=$(device_get of_type.transmitted)
		wait_until more_is_sent "$sent"
		stop
		resume
		cycles=$((cycles + 1))
	done
	touch /tmp/enough
	wait $traffic || fail "$(cat /tmp/frames)"
	[ -s /tmp/rounds ] || fail "no round has ended"
	expect "notifications that were lost" "$(device_get counters.notifications_lost)" 0
	(no_breach)
}

load_module
driver virtio_net
find_device
for test in test_packed_disk test_packed_nic; do
	if ("$test") && (no_breach) && dmesg_is_clean; then echo "ok ${test#test_}"; else echo "not ok ${test#test_}"; fi
done
