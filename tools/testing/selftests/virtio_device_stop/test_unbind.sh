#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# The driver or the module goes away while the device is stopped, or works.

. ./functions.sh

rebind() {
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	expect "state" "$(state)" running
	DISK=$(disk stoppable)
}

test_unbind_while_stopped() {
	stop
	resumed=$(device_get counters.stops.resumed)
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	expect "state" "$(state)" unavailable
	expect "resumed" "$(device_get counters.stops.resumed)" $((resumed + 1))
	rebind
	stop
	resume
	io_works
}

test_unbind_while_stopped_with_waiting_requests() {
	stop
	dd if="/dev/$DISK" of=/dev/null bs=4k count=1 iflag=direct 2>/tmp/dd &
	reader=$!
	wait_until waiting_are 1
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	wait $reader || fail "the waiting read was lost: $(cat /tmp/dd)"
	rebind
	io_works
}

test_unbind_while_stopping() {
	device_set acknowledge=never
	store "$STOP/timeout_ms" 600000 >/dev/null
	store "$STOP/state" stop >/tmp/stopper &
	stopper=$!
	wait_until state_is stopping
	# An unbind waits for as long.
	store "$STOP/timeout_ms" 100 >/dev/null
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	wait $stopper
	expect "stop" "$(cat /tmp/stopper)" "$ENODEV"
	expect "state" "$(state)" unavailable
	rebind
	device_set acknowledge=at-once
	io_works
}

test_unload_while_stopped() {
	stop
	rmmod virtio_device_stop || fail "the module can't be unloaded"
	expect "the device's view" "$(device_get stop)" '"running"'
	[ ! -e "$STOP" ] || fail "the files are still there"
	io_works
	load_module
	# The feature is negotiated still: the module knows its own.
	stop
	resume
	io_works
}

test_unload_while_stopped_with_waiting_requests() {
	start_fio
	expect "stop" "$(store "$STOP/state" stop)" ok
	rmmod virtio_device_stop || fail "the module can't be unloaded"
	more_complete
	load_module
	stop_fio
	io_works
}

test_unload_and_load_under_io() {
	start_fio
	for round in 1 2 3 4 5; do
		rmmod virtio_device_stop || fail "the module can't be unloaded in round $round"
		load_module
		expect "stop" "$(store "$STOP/state" stop)" ok
		expect "resume" "$(store "$STOP/state" resume)" ok
	done
	stop_fio
	io_works
}

test_reset_while_stopped() {
	stop
	generation=$(cat "$STOP/generation")
	echo 1 >"$(pci)/reset" || fail "the function can't be reset"
	wait_until state_is running
	[ "$(cat "$STOP/generation")" -gt "$generation" ] || fail "the generation has not changed"
	expect "negotiated again" "$(device_get protocol)" "\"$PROTOCOL\""
	io_works
	stop
	resume
	io_works
}

test_reset_while_stopping() {
	device_set acknowledge=never
	store "$STOP/timeout_ms" 600000 >/dev/null
	store "$STOP/state" stop >/tmp/stopper &
	stopper=$!
	wait_until state_is stopping
	echo 1 >"$(pci)/reset" || fail "the function can't be reset"
	wait $stopper
	expect "stop" "$(cat /tmp/stopper)" "$ENODEV"
	wait_until state_is running
	device_set acknowledge=at-once
	io_works
}

test_unplug_while_stopped() {
	stop
	echo 1 >"$(pci)/remove"
	[ ! -e "/sys/bus/virtio/devices/$VDEV" ] || fail "the device is still there"
	echo 1 >/sys/bus/pci/rescan
	wait_until disk_is_there stoppable
	find_device
	stop
	resume
	io_works
}

run_tests test_unbind_while_stopped test_unbind_while_stopped_with_waiting_requests test_unbind_while_stopping \
	test_unload_while_stopped test_unload_while_stopped_with_waiting_requests test_unload_and_load_under_io \
	test_reset_while_stopped test_reset_while_stopping test_unplug_while_stopped
