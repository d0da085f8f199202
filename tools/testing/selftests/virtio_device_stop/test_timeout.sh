#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# Devices that do not acknowledge a stop, do it too late, or ask for a reset.

. ./functions.sh

# not_acknowledged: a stop that times out. Either the device runs again, or it is waited for.
not_acknowledged() {
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
	if suspends; then
		expect "state" "$(state)" aborting
		expect "reason" "$(cat "$STOP/reason")" stop_timeout
	else
		expect "state" "$(state)" running
		expect "the device's view" "$(device_get stop)" '"running"'
	fi
}

# What the device was asked for is acknowledged too late, and undone.
answers_late() {
	late=$(stat late_acks)
	device_set acknowledge=at-once
	wait_until stat_is late_acks $((late + 1))
	expect "state" "$(state)" running
}

test_timeout() {
	device_set acknowledge=never
	store "$STOP/timeout_ms" 3000 >/dev/null
	start_fio
	timeouts=$(stat timeouts)
	now
	begin=$NOW
	not_acknowledged
	now
	[ $((NOW - begin)) -ge 2990 ] || fail "the timeout has come too early"
	expect "timeouts" "$(stat timeouts)" $((timeouts + 1))
	if suspends; then
		wait_until waiting_at_least 1
		answers_late
	fi
	more_complete
	stop_fio
	io_works
}

# The device acknowledges as soon as the stop is called off, or some time after that; either way it stands still then, with nobody
# waiting for it. Under VIRTIO_F_SUSPEND nothing is called off: it just comes late.
late_acknowledgement_is_undone() {
	if suspends; then
		device_set acknowledge=never
	else
		device_set "acknowledge=given-up:$1"
	fi
	store "$STOP/timeout_ms" 3000 >/dev/null
	start_fio
	late=$(stat late_acks)
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
	! suspends || device_set "acknowledge=after:$1"
	wait_until stat_is late_acks $((late + 1))
	expect "state" "$(state)" running
	more_complete
	stop_fio
	io_works
}

test_late_acknowledgement_at_once_is_undone() {
	late_acknowledgement_is_undone 0
}

test_late_acknowledgement_later_is_undone() {
	late_acknowledgement_is_undone 1000
}

# Long after the driver above was let go, and though somebody has asked for a resume meanwhile.
test_acknowledgement_after_everybody_has_given_up_is_undone() {
	late=$(stat late_acks)
	if suspends; then
		device_set acknowledge=never
	else
		device_set acknowledge=given-up:13000
	fi
	store "$STOP/timeout_ms" 200 >/dev/null
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
	if suspends; then
		wait_until state_is failed
		expect "resume" "$(store "$STOP/state" resume)" "$ETIMEDOUT"
		expect "state" "$(state)" failed
		expect "reason" "$(cat "$STOP/reason")" stop_unanswered
		device_set acknowledge=at-once
	else
		expect "resume" "$(store "$STOP/state" resume)" ok
	fi
	wait_until stat_is late_acks $((late + 1))
	wait_until state_is running
	io_works
	device_do forget-breaches
}

test_stop_after_a_timeout() {
	requested=$(device_get counters.stops.requested)
	device_set acknowledge=never
	store "$STOP/timeout_ms" 100 >/dev/null
	not_acknowledged
	if suspends; then
		# It is pending still: the new one waits for it.
		store "$STOP/timeout_ms" 600000 >/dev/null
		store "$STOP/state" stop >/tmp/stopper &
		stopper=$!
		wait_until state_is stopping
		device_set acknowledge=at-once
		wait $stopper
		expect "stop" "$(cat /tmp/stopper)" ok
		expect "asked for" "$(device_get counters.stops.requested)" $((requested + 1))
	else
		device_set acknowledge=at-once
		stop
	fi
	resume
	io_works
}

test_needs_reset_is_an_error() {
	device_set acknowledge=needs-reset
	failures=$(stat failures)
	expect "stop" "$(store "$STOP/state" stop)" "$EIO"
	expect "state" "$(state)" failed
	expect "reason" "$(cat "$STOP/reason")" needs_reset
	expect "failures" "$(stat failures)" $((failures + 1))
	expect "another stop" "$(store "$STOP/state" stop)" "$EIO"
	expect "resume" "$(store "$STOP/state" resume)" "$EIO"
	device_set acknowledge=at-once
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	stop
	resume
	io_works
}

test_module_stays_while_a_device_is_watched() {
	device_set acknowledge=never
	store "$STOP/timeout_ms" 100 >/dev/null
	not_acknowledged
	if rmmod virtio_device_stop 2>/dev/null; then
		fail "the module was unloaded"
	fi
	device_set acknowledge=at-once
	wait_until state_is running
	stop
	resume
	rmmod virtio_device_stop || fail "the module can't be unloaded"
	load_module
}

run_tests test_timeout test_late_acknowledgement_at_once_is_undone test_late_acknowledgement_later_is_undone \
	test_acknowledgement_after_everybody_has_given_up_is_undone \
	test_stop_after_a_timeout test_needs_reset_is_an_error test_module_stays_while_a_device_is_watched
