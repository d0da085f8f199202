#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# The driver or the module goes away while the device is stopped, or works.

. ./functions.sh
. ./states.sh

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

# The driver waits for its requests, which the device has not finished, and which it can't before it is resumed.
test_unbind_while_a_stop_that_was_given_up_is_pending() {
	if suspends; then
		device_set acknowledge=after:3000
	else
		device_set acknowledge=given-up:3000
	fi
	store "$STOP/timeout_ms" 200 >/dev/null
	start_fio
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind &
	unbinder=$!
	wait_until has_ended $unbinder
	wait_until has_ended "$FIO"
	io_errors_are_expected
	device_do forget-breaches
	device_do behave
	rebind
	io_works
}

# Nobody looks at a device any more whose driver has gone, so that nothing keeps the module.
test_unload_after_an_unbind_in_every_state() {
	for state in $STATES; do
		enter "$state"
		echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
		[ -z "$REQUEST" ] || wait "$REQUEST"
		rmmod virtio_device_stop || fail "the module can't be unloaded after '$state'"
		device_do forget-breaches
		device_do behave
		load_module
		rebind
	done
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

# The module breaks the virtqueues of a device that does not resume before it goes.
test_device_that_was_left_stopped_works_when_it_is_found() {
	stop
	device_never_resumes
	store "$STOP/timeout_ms" 200 >/dev/null
	rmmod virtio_device_stop || fail "the module can't be unloaded"
	expect "the device's view" "$(device_get stop)" '"resuming"'
	device_set resume=at-once
	load_module
	wait_until state_is running
	io_works
	stop
	resume
}

# It is on its way when the module comes again, or shows nothing that makes sense.
test_device_that_does_not_say_whether_it_runs_is_looked_at() {
	bytes="0xff 0x1f"
	suspends || bytes=0xff
	for byte in $bytes; do
		stop
		device_never_resumes
		device_set "show_status=resuming:$byte"
		store "$STOP/timeout_ms" 200 >/dev/null
		rmmod virtio_device_stop || fail "the module can't be unloaded"
		load_module
		! state_is running || fail "taken for running"
		device_set resume=at-once show_status=as-is
		wait_until state_is running
		io_works
	done
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

# Whoever has stopped the device is told that the stop had ended.
test_stop_that_has_ended_with_the_driver_or_a_reset() {
	stop
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	rebind
	expect "resume after an unbind" "$(store "$STOP/state" resume)" "$ESTALE"
	expect "another resume" "$(store "$STOP/state" resume)" ok
	stop
	echo 1 >"$(pci)/reset" || fail "the function can't be reset"
	wait_until state_is running
	expect "resume after a reset" "$(store "$STOP/state" resume)" "$ESTALE"
	expect "another resume" "$(store "$STOP/state" resume)" ok
}

test_generation_of_an_unloaded_module_is_no_proof() {
	stop
	generation=$(cat "$STOP/generation")
	rmmod virtio_device_stop || fail "the module can't be unloaded"
	load_module
	stop
	[ "$(cat "$STOP/generation")" -gt "$generation" ] || fail "the generation of another stop"
	expect "renew" "$(store "$STOP/renew" "$generation")" "$ESTALE"
	expect "resume" "$(store "$STOP/state" "resume $generation")" "$ESTALE"
	resume
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
	test_unbind_while_a_stop_that_was_given_up_is_pending test_unload_after_an_unbind_in_every_state \
	test_unload_while_stopped test_device_that_was_left_stopped_works_when_it_is_found \
	test_device_that_does_not_say_whether_it_runs_is_looked_at test_unload_while_stopped_with_waiting_requests test_unload_and_load_under_io \
	test_reset_while_stopped test_reset_while_stopping \
	test_stop_that_has_ended_with_the_driver_or_a_reset test_generation_of_an_unloaded_module_is_no_proof \
	test_unplug_while_stopped
