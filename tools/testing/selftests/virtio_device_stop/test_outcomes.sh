#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# What becomes of a device whose answers are late, lost or wrong: its state, the error, the reason, and what may follow.

. ./functions.sh

# is STATE REASON
is() {
	expect "state" "$(state)" "$1"
	expect "reason" "$(cat "$STOP/reason")" "$2"
}

# Nothing but a reset helps: the driver is bound anew.
rebind() {
	device_do behave
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	find_device
	is running none
	stop
	resume
	io_works
}

test_resume_that_is_not_answered() {
	stop
	start_reader
	device_never_resumes
	store "$STOP/timeout_ms" 200 >/dev/null
	timeouts=$(stat timeouts)
	late=$(stat late_acks)
	expect "resume" "$(store "$STOP/state" resume)" "$ETIMEDOUT"
	is failed resume_unanswered
	expect "stop" "$(store "$STOP/state" stop)" "$EBUSY"
	expect "another resume" "$(store "$STOP/state" resume)" "$ETIMEDOUT"
	expect "timeouts" "$(stat timeouts)" $((timeouts + 2))
	expect "waiting" "$(waiting)" 1
	device_set resume=at-once
	wait_until state_is running
	reader_is_done
	is running none
	expect "late acknowledgements of a stop" "$(stat late_acks)" "$late"
	stop
	resume
}

# A stop that was given up, and that the device neither acknowledges nor ends.
test_stop_that_stays_unanswered() {
	if suspends; then
		device_set acknowledge=never
	else
		device_set acknowledge=given-up:0 resume=never
	fi
	store "$STOP/timeout_ms" 100 >/dev/null
	late=$(stat late_acks)
	now
	begin=$NOW
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
	is aborting stop_timeout
	start_reader
	wait_until state_is failed
	now
	[ $((NOW - begin)) -ge 10000 ] || fail "given up too early"
	is failed stop_unanswered
	expect "stop" "$(store "$STOP/state" stop)" "$EBUSY"
	if suspends; then
		# The driver above was let go, which VIRTIO_F_SUSPEND forbids: the other way would be to hang for ever.
		wait_until breached
		device_do forget-breaches
	fi
	device_set acknowledge=at-once resume=at-once
	wait_until state_is running
	reader_is_done
	expect "late acknowledgements" "$(stat late_acks)" $((late + 1))
	stop
	resume
}

breached() {
	[ "$(device_get breach_count)" -gt 0 ]
}

# A stop that comes late is ended by nobody: by whom, then, is a device asked that wants SUSPEND cleared?
test_late_stop_of_one_that_takes_the_other_form_only() {
	suspends || return 0
	resumes_may_be_late
	device_set acknowledge=never resume_form=cleared
	store "$STOP/timeout_ms" 300 >/dev/null
	cleared=$(stat suspend_cleared)
	expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
	is aborting stop_timeout
	start_reader
	device_set acknowledge=at-once
	wait_until state_is running
	reader_is_done
	expect "resumes in the other form" "$(stat suspend_cleared)" $((cleared + 1))
}

test_stop_that_the_device_drops() {
	stop
	start_reader
	dropped=$(stat dropped)
	generation=$(cat "$STOP/generation")
	device_set drop_stop=after:0
	[ "$(cat "$STOP/generation")" -gt "$generation" ] || fail "the generation has not changed"
	is running stop_dropped
	expect "dropped" "$(stat dropped)" $((dropped + 1))
	reader_is_done
	expect "the first resume" "$(store "$STOP/state" resume)" "$ESTALE"
	expect "the second" "$(store "$STOP/state" resume)" ok
	device_set drop_stop=never
	stop
	resume
}

test_resume_finds_the_stop_dropped() {
	stop
	device_set drop_stop=after:0
	expect "resume" "$(store "$STOP/state" resume)" "$ESTALE"
	is running stop_dropped
}

# answers BYTE ERROR STATE REASON: what a device comes to that shows BYTE while it is to stop.
answers() {
	device_set acknowledge=never "show_status=stopping:$1"
	failures=$(stat failures)
	expect "stop" "$(store "$STOP/state" stop)" "$2"
	is "$3" "$4"
	expect "failures" "$(stat failures)" $((failures + 1))
	expect "another stop" "$(store "$STOP/state" stop)" "$2"
	rebind
}

test_status_of_0_is_a_reset() {
	answers 0x00 "$ENODEV" unavailable reset
}

# Such as while what stands behind the device is exchanged. The bus knows the device still.
test_status_of_ones_for_a_moment_changes_nothing() {
	stop
	start_reader
	generation=$(cat "$STOP/generation")
	device_set show_status=always:0xff
	is stopped none
	expect "the generation, which can't be told," "$(cat "$STOP/generation" 2>&1)" "cat: read error: Resource temporarily unavailable"
	store "$STOP/timeout_ms" 300 >/dev/null
	expect "resume" "$(store "$STOP/state" resume)" "$ETIMEDOUT"
	is failed resume_unanswered
	expect "waiting" "$(waiting)" 1
	device_set show_status=as-is
	wait_until state_is running
	reader_is_done
	stop
	device_set show_status=always:0xff
	is stopped none
	device_set show_status=as-is
	[ "$(cat "$STOP/generation")" -gt "$generation" ] || fail "the generation has not changed"
	resume
}

test_status_of_ones_for_too_long_is_a_device_that_is_gone() {
	store "$STOP/timeout_ms" 200 >/dev/null
	stop
	start_reader
	device_set show_status=always:0xff
	is stopped none
	wait_until state_is unavailable
	is unavailable gone
	! wait "$READER" || fail "the waiting read has succeeded"
	io_errors_are_expected
	expect "stop" "$(store "$STOP/state" stop)" "$ENODEV"
	rebind
}

# The first has the bits of a device that has stopped under both protocols, and lacks some that the driver has set.
test_status_that_can_not_be_an_answer_is_nothing_to_build_on() {
	for byte in 0x30 0x25 0x12; do
		device_set acknowledge=never "show_status=stopping:$byte"
		store "$STOP/timeout_ms" 200 >/dev/null
		expect "stop" "$(store "$STOP/state" stop)" "$ETIMEDOUT"
		is aborting stop_timeout
		device_set show_status=as-is acknowledge=at-once
		wait_until state_is running
		expect "breaches" "$(device_get breach_count)" 0
	done
	io_works
}

# SUSPEND and DRIVER_OK together: the device is on its way.
test_device_that_shows_both_bits_does_not_run_yet() {
	suspends || return 0
	stop
	start_reader
	device_set resume=never show_status=resuming:0x1f
	store "$STOP/timeout_ms" 200 >/dev/null
	for attempt in 1 2; do
		expect "resume $attempt" "$(store "$STOP/state" resume)" "$ETIMEDOUT"
		is failed resume_unanswered
	done
	expect "breaches" "$(device_get breach_count)" 0
	expect "waiting" "$(waiting)" 1
	# In this order: what the device shows again before it has resumed is a stop, which is cleared when it is late.
	device_set resume=at-once show_status=as-is
	wait_until state_is running
	reader_is_done
}

test_failed_needs_a_reset() {
	answers 0x8f "$EIO" failed needs_reset
}

reads_at_least() {
	[ "$(device_get counters.status_reads)" -ge "$1" ]
}

test_any_other_status_is_no_answer() {
	for byte in 0x01 0x0b; do
		device_set acknowledge=never "show_status=stopping:$byte"
		store "$STOP/timeout_ms" 600000 >/dev/null
		reads=$(device_get counters.status_reads)
		store "$STOP/state" stop >/tmp/stopper &
		stopper=$!
		wait_until reads_at_least $((reads + 20))
		expect "state" "$(state)" stopping
		device_set show_status=as-is acknowledge=at-once
		wait $stopper
		expect "stop" "$(cat /tmp/stopper)" ok
		resume
	done
}

test_stop_of_a_driver_that_is_not_ready() {
	device_set show_status=always:0x0b
	writes=$(device_get counters.status_writes)
	expect "stop" "$(store "$STOP/state" stop)" "$ENXIO"
	expect "writes of the status" "$(device_get counters.status_writes)" "$writes"
	is running none
	device_set show_status=as-is
	stop
	resume
}

# One that runs all the same is not held back by a stop that was refused.
test_device_that_shows_suspend_unasked_works_on() {
	suspends || return 0
	store "$STOP/timeout_ms" 200 >/dev/null
	timeouts=$(stat timeouts)
	device_set show_status=always:0x1f
	expect "stop" "$(store "$STOP/state" stop)" "$EBUSY"
	wait_until state_is failed
	is failed resume_unanswered
	io_works
	expect "timeouts" "$(stat timeouts)" "$timeouts"
	device_set show_status=as-is
	wait_until state_is running
	stop
	resume
}

test_needs_reset_on_a_resume() {
	device_set resume=needs-reset
	stop
	expect "resume" "$(store "$STOP/state" resume)" "$EIO"
	is failed needs_reset
	rebind
}

test_needs_reset_while_stopped() {
	stop
	device_do needs-reset
	is failed needs_reset
	expect "resume" "$(store "$STOP/state" resume)" "$EIO"
	rebind
}

# Some devices take DRIVER_OK with SUSPEND for another request to suspend.
test_device_that_wants_suspend_cleared_is_resumed() {
	suspends || return 0
	resumes_may_be_late
	cleared=$(stat suspend_cleared)
	resumes=$(stat resumes)
	stop
	start_reader
	device_set resume_form=cleared
	store "$STOP/timeout_ms" 200 >/dev/null
	resume
	reader_is_done
	expect "asked by clearing SUSPEND" "$(stat suspend_cleared)" $((cleared + 1))
	expect "resumes" "$(stat resumes)" $((resumes + 1))
	expect "breaches" "$(device_get breach_count)" 1
	stop
	resume
	expect "it is not remembered" "$(device_get breach_count)" 2
}

in_flight() {
	cat "$STOP/in_flight"
}

# Under VIRTIO_F_SUSPEND, an acknowledgement does not prove that nothing is in flight.
test_requests_that_a_stopped_device_has_still() {
	expect "of a device that runs" "$(in_flight)" unknown
	stop
	expect "of a device that was idle" "$(in_flight)" 0
	resume
	suspends || return 0
	device_set leave_requests=true io_hold=always
	dd if="/dev/$DISK" of=/dev/null bs=4k count=1 iflag=direct 2>/tmp/dd &
	READER=$!
	wait_until in_flight_at_least 1
	stop
	expect "requests" "$(in_flight)" 1
	device_set io_hold=no
	expect "requests of a device that stays stopped" "$(in_flight)" 1
	resume
	reader_is_done
	stop
	expect "requests" "$(in_flight)" 0
	resume
}

test_in_flight_is_unknown_of_others() {
	modprobe virtio_rng
	find_type 4
	DEVICE=entropy
	expect "of a device that runs" "$(in_flight)" unknown
	! suspends || store "$STOP/force" 1 >/dev/null
	stop
	expect "of a device without requests that can be counted" "$(in_flight)" unknown
	resume
	! suspends || store "$STOP/force" 0 >/dev/null
}

run_tests test_resume_that_is_not_answered test_stop_that_stays_unanswered test_stop_that_the_device_drops \
	test_resume_finds_the_stop_dropped test_status_of_0_is_a_reset \
	test_status_of_ones_for_a_moment_changes_nothing test_status_of_ones_for_too_long_is_a_device_that_is_gone \
	test_status_that_can_not_be_an_answer_is_nothing_to_build_on test_device_that_shows_both_bits_does_not_run_yet \
	test_failed_needs_a_reset test_any_other_status_is_no_answer \
	test_stop_of_a_driver_that_is_not_ready test_device_that_shows_suspend_unasked_works_on test_needs_reset_on_a_resume test_needs_reset_while_stopped \
	test_device_that_wants_suspend_cleared_is_resumed test_late_stop_of_one_that_takes_the_other_form_only \
	test_requests_that_a_stopped_device_has_still \
	test_in_flight_is_unknown_of_others
