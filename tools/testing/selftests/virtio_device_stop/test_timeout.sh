#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# Devices that do not acknowledge a stop, do it too late, or ask for a reset.

. ./functions.sh

test_timeout_rolls_back() {
	device_set acknowledge=never
	store "$STOP/timeout_ms" 300 >/dev/null
	start_fio
	timeouts=$(stat timeouts)
	now
	begin=$NOW
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
	now
	[ $((NOW - begin)) -ge 290 ] || fail "the timeout has come too early"
	expect "state" "$(state)" running
	expect "timeouts" "$(stat timeouts)" $((timeouts + 1))
	expect "the device's view" "$(device_get stop)" '"running"'
	more_complete
	stop_fio
	io_works
}

# The device acknowledges as soon as the stop is called off, or some time after that; either way it stands still then, with nobody
# waiting for it.
late_acknowledgement_is_undone() {
	device_set "acknowledge=given-up:$1"
	store "$STOP/timeout_ms" 300 >/dev/null
	start_fio
	late=$(stat late_acks)
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
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
	late_acknowledgement_is_undone 700
}

test_stop_after_a_timeout() {
	device_set acknowledge=never
	store "$STOP/timeout_ms" 100 >/dev/null
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
	device_set acknowledge=at-once
	stop
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
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
	if rmmod virtio_device_stop 2>/dev/null; then
		fail "the module was unloaded"
	fi
	device_set acknowledge=at-once
	stop
	resume
	rmmod virtio_device_stop || fail "the module can't be unloaded"
	load_module
}

run_tests test_timeout_rolls_back test_late_acknowledgement_at_once_is_undone test_late_acknowledgement_later_is_undone \
	test_stop_after_a_timeout test_needs_reset_is_an_error test_module_stays_while_a_device_is_watched
