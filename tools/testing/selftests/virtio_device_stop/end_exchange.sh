#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_exchange.sh CYCLES
#
# The process of the devices is exchanged while they are stopped, under load. They are "disk", with a mounted file system, "host", with
# two SCSI disks, "nic", and "other", a disk.

DEVICE=disk
BLOCK_DEVICES="disk host other"
# shellcheck source=tools/testing/selftests/virtio_device_stop/traffic.sh
. ./traffic.sh

CYCLES=$1

# exchange [WHAT]: another process takes the devices over.
exchange() {
	TAKEOVERS=$((TAKEOVERS + 1))
	./exchange.sh $TAKEOVERS "$1" || fail "no exchange"
}

# A successor is there before, and waits: all stand still for the exchange alone, and while they do this shell starts nothing.
cycle() {
	echo "exchange the server as soon as it has stopped"
	all_go_on
	TAKEOVERS=$((TAKEOVERS + 1))
	for_all stop
	wait_for_takeover $TAKEOVERS || fail "no exchange"
	for_all resume
	all_go_on
	stood_still
}

test_exchange() {
	number=0
	while [ $number -lt "$CYCLES" ]; do
		cycle
		number=$((number + 1))
	done
	counted
}

test_refusal() {
	for_all stop
	echo "exchange the server that fails"
	# The next one can.
	exchange
	for_all resume
	all_go_on
	counted
}

test_moved_data() {
	for_all stop
	exchange " with moved data"
	for_all resume
	all_go_on
	counted
}

test_exchange_by_virtio_stop() {
	TAKEOVERS=$((TAKEOVERS + 1))
	vdevs=
	for stop in $STOPS; do
		vdev=${stop%/*}
		vdevs="$vdevs ${vdev##*/}"
	done
	# What the device has not taken when the stop is asked for stays in the virtqueue, and the successor takes it.
	# shellcheck disable=SC2086 # a word each
	virtio-stop run --allow-in-flight --timeout 600000 $vdevs -- ./exchange.sh $TAKEOVERS >/tmp/out 2>&1 </dev/null ||
		fail "virtio-stop ends with $?: $(cat /tmp/out)"
	all_go_on
	counted
}

load_module
find_devices 0 1
start_load host /dev/sda unit1 /dev/sdb other "/dev/$(disk other)"
all_go_on
for test in exchange refusal moved_data exchange_by_virtio_stop; do
	TAKEOVERS=$(device_get counters.takeovers)
	if ("test_$test") && (no_breach) && (wait_until nobody_hangs) && dmesg_is_clean; then
		echo "ok $test"
	else
		echo "not ok $test"
		(for_all resume)
	fi
done
if (end_load); then echo "ok traffic"; else echo "not ok traffic"; fi
