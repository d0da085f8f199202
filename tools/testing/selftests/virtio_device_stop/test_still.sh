#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# What a stop promises: what the device has taken is finished, nothing more is taken, and nothing is lost.

. ./functions.sh

# How often, when this is not said.
CYCLES=${1:-50}

test_in_flight_requests_finish_before_the_acknowledgement() {
	start_fio
	device_set io_hold=until-stop
	requested=$(device_get counters.stops.requested)
	loaded=$(device_get counters.stops.requested_with_requests)
	cycle=0
	while [ $cycle -lt "$CYCLES" ]; do
		wait_until in_flight_at_least 1
		echo stop >"$STOP/state" || fail "no stop in cycle $cycle"
		in_flight_at_least 1 && fail "requests are in flight while stopped"
		echo resume >"$STOP/state" || fail "no resume in cycle $cycle"
		cycle=$((cycle + 1))
	done
	device_set io_hold=no
	stop_fio
	expect "stops" $(($(device_get counters.stops.requested) - requested)) "$CYCLES"
	loaded=$(($(device_get counters.stops.requested_with_requests) - loaded))
	expect "stops with requests in flight" $loaded "$CYCLES"
	expect "acknowledged with requests" "$(device_get counters.stops.acknowledged_with_requests)" 0
	expect "taken while stopped" "$(device_get counters.requests.taken_while_stopped)" 0
	expect "failed" "$(device_get counters.requests.failed)" 0
	io_works
}

# inflight_at_least N: that many requests are with the driver.
inflight_at_least() {
	read -r reads writes <"/sys/block/$DISK/inflight" && [ $((reads + writes)) -ge "$1" ]
}

requests_wait_in_the_virtqueue() {
	[ "$(device_get counters.requests.in_flight)" = 2 ] && inflight_at_least 8
}

# Stops the disk while more requests wait in the virtqueue than the device works on, and sees whether it takes any of them.
still_while_stopped() {
	start_fio
	device_set io_depth=2 io_hold=until-stop
	wait_until requests_wait_in_the_virtqueue
	expect "stop" "$(store "$STOP/state" stop)" ok
	taken=$(device_get counters.requests.taken)
	look=0
	while [ $look -lt 20 ]; do
		inflight_at_least 1 || fail "no request waits"
		expect "taken" "$(device_get counters.requests.taken)" "$taken"
		look=$((look + 1))
	done
}

test_nothing_is_taken_while_stopped() {
	still_while_stopped
	resume
	device_set io_hold=no
	stop_fio
	io_works
}

test_device_that_takes_requests_while_stopped_is_caught() {
	device_set take_while_stopped=true
	taken=$(device_get counters.requests.taken_while_stopped)
	if (still_while_stopped); then
		fail "the planted bug was not seen"
	fi
	[ "$(device_get counters.requests.taken_while_stopped)" -gt "$taken" ] || fail "something else was seen"
	store "$STOP/state" resume >/dev/null
	device_set io_hold=no
	killall -INT fio
	wait_until no_fio
}

no_fio() {
	! pidof fio >/dev/null
}

test_waiting_requests_finish_after_the_resume() {
	stop
	notifications=$(device_get counters.notifications)
	for block in 10 20 30 40 50 60 70 80; do
		dd if=/dev/zero of="/dev/$DISK" bs=4k count=1 seek=$block oflag=direct 2>/dev/null &
	done
	wait_until waiting_are 8
	expect "notifications by a quiesced driver" "$(device_get counters.notifications)" "$notifications"
	completed=$(device_get counters.requests.completed)
	resume
	wait
	expect "completed" "$(device_get counters.requests.completed)" $((completed + 8))
}

test_device_that_forgets_notifications_is_notified() {
	device_set forget_notifications=true
	still_while_stopped
	resume
	device_set io_hold=no
	more_complete
	stop_fio
}

run_tests test_in_flight_requests_finish_before_the_acknowledgement test_nothing_is_taken_while_stopped \
	test_device_that_takes_requests_while_stopped_is_caught test_waiting_requests_finish_after_the_resume \
	test_device_that_forgets_notifications_is_notified
