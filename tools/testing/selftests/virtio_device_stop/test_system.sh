#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# The system does not go to sleep with a stopped device: to freeze its driver would wait for ever.

. ./functions.sh

sleep_is_refused() {
	expect "sleep" "$(store /sys/power/state freeze)" "$EBUSY"
}

test_sleep_is_refused_while_stopped() {
	stop
	generation=$(cat "$STOP/generation")
	sleep_is_refused
	expect "generation" "$(cat "$STOP/generation")" "$generation"
	resume
	# It is not asleep: a stop is possible again.
	stop
	resume
	io_works
}

test_sleep_is_refused_while_stopping() {
	device_set acknowledge=never
	store "$STOP/timeout_ms" 600000 >/dev/null
	store "$STOP/state" stop >/tmp/stopper &
	stopper=$!
	wait_until state_is stopping
	sleep_is_refused
	device_set acknowledge=at-once
	wait $stopper
	expect "stop" "$(cat /tmp/stopper)" ok
	resume
	io_works
}

run_tests test_sleep_is_refused_while_stopped test_sleep_is_refused_while_stopping
