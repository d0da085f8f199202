#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# Stop and resume, one after the other.

. ./functions.sh

test_stop_and_resume() {
	generation=$(cat "$STOP/generation")
	stops=$(stat stops)
	resumes=$(stat resumes)
	stop
	expect "the device's view" "$(device_get stop)" '"stopped"'
	expect "stops" "$(stat stops)" $((stops + 1))
	resume
	expect "the device's view" "$(device_get stop)" '"running"'
	expect "resumes" "$(stat resumes)" $((resumes + 1))
	[ "$(cat "$STOP/generation")" -gt "$generation" ] || fail "the generation has not changed"
	io_works
}

test_both_twice() {
	stops=$(stat stops)
	stop
	generation=$(cat "$STOP/generation")
	stop
	expect "generation" "$(cat "$STOP/generation")" "$generation"
	resume
	generation=$(cat "$STOP/generation")
	resume
	expect "generation" "$(cat "$STOP/generation")" "$generation"
	expect "stops" "$(stat stops)" $((stops + 1))
}

test_instant_device_costs_three_accesses_each_way() {
	accesses=$(($(device_get counters.status_reads) + $(device_get counters.status_writes)))
	expect "stop" "$(store "$STOP/state" stop)" ok
	after=$(($(device_get counters.status_reads) + $(device_get counters.status_writes)))
	expect "accesses for a stop" $((after - accesses)) 3
	expect "last_status_reads" "$(stat last_status_reads)" 2
	accesses=$after
	expect "resume" "$(store "$STOP/state" resume)" ok
	after=$(($(device_get counters.status_reads) + $(device_get counters.status_writes)))
	expect "accesses for a resume" $((after - accesses)) 3
	[ "$(stat last_stop_us)" -gt 0 ] && [ "$(stat last_resume_us)" -gt 0 ] || fail "no time was taken"
}

# Later than the timeout that a device has at first.
test_late_acknowledgement() {
	device_set acknowledge=after:1500
	store "$STOP/timeout_ms" 30000 >/dev/null
	acknowledged=$(device_get counters.stops.acknowledged)
	now
	begin=$NOW
	expect "stop" "$(store "$STOP/state" stop)" ok
	now
	[ $((NOW - begin)) -ge 1490 ] || fail "the write has returned before the acknowledgement"
	expect "acknowledged" "$(device_get counters.stops.acknowledged)" $((acknowledged + 1))
	[ "$(stat last_stop_us)" -ge 1500000 ] || fail "last_stop_us is $(stat last_stop_us)"
	resume
	io_works
}

test_resume_ends_a_stop_that_is_waited_for() {
	device_set acknowledge=never
	store "$STOP/timeout_ms" 600000 >/dev/null
	store "$STOP/state" stop >/tmp/stopper &
	stopper=$!
	wait_until state_is stopping
	expect "a second stop" "$(store "$STOP/state" stop)" "$EBUSY"
	store "$STOP/state" resume >/tmp/resumer &
	resumer=$!
	wait $stopper
	expect "stop" "$(cat /tmp/stopper)" "$ECANCELED"
	if suspends; then
		# It can't be called off: the resume waits for the acknowledgement.
		wait_until state_is resuming
		device_set acknowledge=at-once
	fi
	wait $resumer
	expect "resume" "$(cat /tmp/resumer)" ok
	expect "state" "$(state)" running
	expect "the device's view" "$(device_get stop)" '"running"'
	io_works
}

test_stop_whose_agent_is_killed() {
	device_set acknowledge=never
	store "$STOP/timeout_ms" 600000 >/dev/null
	late=$(stat late_acks)
	sh -c "echo stop >$STOP/state" &
	agent=$!
	wait_until state_is stopping
	kill -9 $agent
	wait $agent
	if suspends; then
		wait_until state_is aborting
		device_set acknowledge=at-once
		wait_until stat_is late_acks $((late + 1))
	fi
	wait_until state_is running
	expect "the device's view" "$(device_get stop)" '"running"'
	io_works
}

run_tests test_stop_and_resume test_both_twice test_instant_device_costs_three_accesses_each_way test_late_acknowledgement \
	test_resume_ends_a_stop_that_is_waited_for test_stop_whose_agent_is_killed
