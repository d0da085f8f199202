#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# /dev/virtio_device_stop: a stop has an owner, and ends with it; several devices stop, or none.

. ./functions.sh
. ./owner.sh

# How many random calls, when this is not said.
CALLS=${1:-3000}

# by_another COMMAND ANSWER: by another process that has the same file. It is CHILD.
by_another() {
	owner_says "also $1"
	CHILD=$SAID
	wait_until test -s also
	expect "$1" "$(cat also)" "$2"
}

device_of() {
	echo "/sys/bus/virtio/devices/$VDEV"
}

holder() {
	cat "$STOP/holder"
}

# However its process is called.
test_holder_is_one_line() {
	OWNER_PROGRAM=$(printf 'o\n\303\266')
	ln -s owner "$OWNER_PROGRAM"
	owner "$(device_of)"
	rm "$OWNER_PROGRAM"
	asks stop ok
	expect "holder" "$(holder)" "$OWNER o???"
	asks resume ok
	owner_goes
}

test_stop_is_its_owner_s_own() {
	owner "$(device_of)"
	asks version 1
	expect "holder" "$(holder)" none
	start_fio
	asks stop ok
	expect "state" "$(state)" stopped
	expect "holder" "$(holder)" "$OWNER owner"
	generation=$(cat "$STOP/generation")
	index=${VDEV#virtio}
	protocol=1
	! suspends || protocol=2
	asks report "$index/3/0/$protocol/1/1/$generation/$(cat "$STOP/in_flight")"
	asks stop ok
	expect "generation" "$(cat "$STOP/generation")" "$generation"
	expect "stop" "$(store "$STOP/state" stop)" "$EBUSY"
	expect "resume" "$(store "$STOP/state" resume)" "$EBUSY"
	expect "resume" "$(store "$STOP/state" "resume $generation")" "$EBUSY"
	expect "state" "$(state)" stopped
	asks renew ok
	asks resume ok
	expect "state" "$(state)" running
	expect "holder" "$(holder)" none
	asks resume ok
	asks renew ok
	asks report "$index/1/0/$protocol/0/1/$(cat "$STOP/generation")/-1"
	more_complete
	stop_fio
	# What is everybody's is nobody's own.
	stop
	asks stop "$EBUSY $VDEV 0"
	resume
	owner_goes
	expect "state" "$(state)" running
	expect "resume" "$(store "$STOP/state" resume)" ok
}

test_stop_ends_with_its_owner() {
	expiries=$(stat lease_expiries)
	for end in goes is_killed; do
		start_fio
		owner "$(device_of)"
		asks stop ok
		expect "state" "$(state)" stopped
		if [ $end = goes ]; then
			owner_goes
		else
			kill -9 "$OWNER"
			wait "$OWNER"
		fi
		wait_until state_is running
		expect "reason" "$(cat "$STOP/reason")" none
		expect "holder" "$(holder)" none
		more_complete
		stop_fio
	done
	expect "lease_expiries" "$(stat lease_expiries)" "$expiries"
}

test_last_one_that_has_the_file_counts() {
	owner "$(device_of)"
	by_another stop ok
	kill -9 "$OWNER"
	wait "$OWNER"
	expect "state" "$(state)" stopped
	stop_file=$(cat "$STOP/generation")
	kill -9 "$CHILD"
	wait_until state_is running
	[ "$(cat "$STOP/generation")" -gt "$stop_file" ] || fail "it had not stopped"
}

test_owner_is_killed_while_it_stops() {
	device_set acknowledge=never
	echo 600000 >"$STOP/timeout_ms"
	start_fio
	owner "$(device_of)"
	owner_says also stop
	wait_until state_is stopping
	late=$(stat late_acks)
	# Both have the file, and one is in the call.
	kill -9 "$OWNER" "$SAID"
	wait "$OWNER"
	if suspends; then
		# It can't be called off.
		wait_until state_is aborting
		device_set acknowledge=at-once
		wait_until stat_is late_acks $((late + 1))
	fi
	wait_until state_is running
	more_complete
	stop_fio
}

# kill_owner [CHILD]: whoever has the file.
kill_owner() {
	kill -9 "$OWNER" "$@"
	wait "$OWNER"
}

test_owner_is_killed_while_it_resumes() {
	owner "$(device_of)"
	asks stop ok
	start_reader
	device_never_resumes
	echo 600000 >"$STOP/timeout_ms"
	owner_says also resume
	wait_until state_is resuming
	kill_owner "$SAID"
	wait_until state_is failed
	expect "reason" "$(cat "$STOP/reason")" resume_unanswered
	device_do behave
	wait_until state_is running
	reader_is_done
}

test_owner_is_killed_after_what_has_failed() {
	echo 200 >"$STOP/timeout_ms"
	owner "$(device_of)"
	asks stop ok
	start_reader
	device_never_resumes
	asks resume "$ETIMEDOUT $VDEV 16"
	expect "state" "$(state)" failed
	kill_owner
	expect "state" "$(state)" failed
	device_do behave
	wait_until state_is running
	reader_is_done
	suspends || return 0
	device_set acknowledge=never
	owner "$(device_of)"
	asks stop "$ETIMEDOUT $VDEV 14"
	expect "state" "$(state)" aborting
	start_reader
	late=$(stat late_acks)
	kill_owner
	expect "state" "$(state)" aborting
	device_set acknowledge=at-once
	wait_until state_is running
	expect "late_acks" "$(stat late_acks)" $((late + 1))
	reader_is_done
}

test_stop_that_has_lapsed_is_told_of() {
	owner "$(device_of)"
	asks stop ok
	expect "resume" "$(store "$STOP/state" "resume force")" ok
	asks stop "$ESTALE $VDEV 0"
	expect "state" "$(state)" running
	asks stop ok
	asks resume ok
	owner_goes
}

# What somebody else has asked of the device is not to be undone by this one, nor is what can't be.
test_what_is_not_its_own_is_left_alone() {
	owner "$(device_of)"
	device_never_resumes
	store "$STOP/timeout_ms" 200 >/dev/null
	stop
	expect "resume" "$(store "$STOP/state" resume)" "$ETIMEDOUT"
	expect "state" "$(state)" failed
	writes=$(device_get counters.status_writes)
	asks stop "$EBUSY $VDEV 16"
	asks resume ok
	expect "state" "$(state)" failed
	expect "writes of the status" "$(device_get counters.status_writes)" "$writes"
	asks remove ok
	owner_goes
	device_do behave
	wait_until state_is running
	store "$STOP/timeout_ms" $USUAL_TIMEOUT_MS >/dev/null
	owner "$(device_of)"
	device_do needs-reset
	asks stop "$EIO $VDEV 13"
	asks resume ok
	asks remove ok
	owner_goes
	bind_again
}

# Root is resuming it: that is waited for by nobody else.
test_resume_by_root_is_under_way() {
	owner "$(device_of)"
	asks stop ok
	device_never_resumes
	store "$STOP/timeout_ms" 600000 >/dev/null
	store "$STOP/state" "resume force" >/tmp/root &
	root=$!
	wait_until state_is resuming
	asks resume "$EBUSY $VDEV 0"
	device_do behave
	wait $root
	expect "resume by root" "$(cat /tmp/root)" ok
	asks resume "$ESTALE $VDEV 0"
	asks resume ok
	owner_goes
}

# What root has asked in vain the owner asks again, if it is told to.
test_root_has_resumed_in_vain() {
	owner "$(device_of)"
	asks stop ok
	device_never_resumes
	store "$STOP/timeout_ms" 200 >/dev/null
	expect "resume by root" "$(store "$STOP/state" "resume force")" "$ETIMEDOUT"
	expect "state" "$(state)" failed
	asks resume "$EBUSY $VDEV 16"
	asks "resume 200" "$ETIMEDOUT $VDEV 16"
	device_do behave
	wait_until state_is running
	asks resume ok
	owner_goes
}

test_stopped_device_needs_a_reset() {
	owner "$(device_of)"
	asks stop ok
	device_do needs-reset
	asks resume "$EIO $VDEV 13"
	asks resume ok
	owner_goes
	bind_again
	expect "state" "$(state)" running
}

test_stop_is_called_off_by_its_owner() {
	device_set acknowledge=never
	echo 600000 >"$STOP/timeout_ms"
	owner "$(device_of)"
	owner_says also stop
	child=$SAID
	wait_until state_is stopping
	asks resume "$EBUSY"
	asks report "$EBUSY"
	expect "state" "$(state)" stopping
	asks call_off ok
	wait_until test -s also
	case $(cat also) in "$ECANCELED $VDEV "*) ;; *) fail "the stop was not called off: $(cat also)" ;; esac
	device_set acknowledge=at-once
	wait_until state_is running
	kill -9 "$child"
	# There is nothing to be called off: what stands is not ended.
	asks call_off ok
	asks stop ok
	asks call_off ok
	expect "state" "$(state)" stopped
	asks resume ok
	owner_goes
}

test_two_owners() {
	owner "$(device_of)"
	asks stop ok
	echo stop | ./owner "$(device_of)" >/tmp/other
	expect "another stop" "$(tail -n 1 /tmp/other)" "$EBUSY $VDEV 0"
	echo resume | ./owner "$(device_of)" >/tmp/other
	expect "another resume" "$(tail -n 1 /tmp/other)" ok
	expect "state" "$(state)" stopped
	owner_goes
	wait_until state_is running
	echo stop | ./owner "$(device_of)" >/tmp/other
	expect "another stop" "$(tail -n 1 /tmp/other)" ok
	wait_until state_is running
}

test_lease_ends_what_its_owner_does_not() {
	expiries=$(stat lease_expiries)
	# Not the administrator's.
	echo 0 >"$STOP/lease_ms"
	owner "$(device_of)"
	asks "stop 0 500" ok
	wait_until stat_is lease_expiries $((expiries + 1))
	expect "state" "$(state)" running
	asks renew "$ESTALE $VDEV 18"
	asks resume "$ESTALE $VDEV 18"
	asks resume ok
	# Whoever comes later is not told of what was another's.
	expect "resume" "$(store "$STOP/state" resume)" ok
	now
	begin=$NOW
	# Enough for a slow guest to say the next two.
	asks "stop 0 5000" ok
	# The one that is longer holds.
	asks "stop 0 60000" ok
	asks "stop 0 1" ok
	wait_until older_than 6000
	expect "state" "$(state)" stopped
	expect "holder" "$(holder)" "$OWNER owner"
	# Root ends it, whoever has it.
	expect "resume" "$(store "$STOP/state" "resume force")" ok
	expect "state" "$(state)" running
	asks resume "$ESTALE $VDEV 0"
	owner_goes
}

older_than() {
	now
	[ $((NOW - begin)) -ge "$1" ]
}

test_one_that_has_not_resumed_is_asked_again() {
	owner "$(device_of)"
	asks stop ok
	asks "remove 0" "$EBUSY"
	device_never_resumes
	asks "resume 200" "$ETIMEDOUT $VDEV 16"
	expect "state" "$(state)" failed
	asks "resume 200" "$ETIMEDOUT $VDEV 16"
	device_set resume=at-once
	wait_until state_is running
	asks resume ok
	asks stop ok
	asks resume ok
	owner_goes
}

test_device_that_leaves() {
	owner "$(device_of)"
	index=${VDEV#virtio}
	asks stop ok
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	expect "state" "$(state)" unavailable
	asks resume "$ESTALE $VDEV 1"
	asks stop "$ENXIO $VDEV 1"
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	find_device
	asks stop ok
	expect "state" "$(state)" stopped
	echo 1 >"$(pci)/remove"
	asks report "$index/0/12/0/0/0/0/-1"
	asks resume "$ENODEV virtio$index 12"
	asks stop "$ENODEV virtio$index 12"
	echo 1 >/sys/bus/pci/rescan
	wait_until disk_is_there "$DEVICE"
	find_device
	# It is another one, even if it has the same name.
	asks stop "$ENODEV virtio$index 12"
	asks "remove 0" ok
	asks "remove 0" "$ENOENT"
	asks report ""
	asks stop "$EINVAL"
	owner_goes
	expect "state" "$(state)" running
}

test_module_stays_while_a_file_is_open() {
	owner "$(device_of)"
	! rmmod virtio_device_stop 2>/dev/null || fail "unloaded while a file is open"
	asks stop ok
	owner_goes
	# What it has stopped may be resuming just now.
	wait_until rmmod virtio_device_stop 2>/dev/null
	bind_again
	load_module
	bind_again
	expect "state" "$(state)" running
}

refused() {
	./owner "$@" </dev/null 2>&1 >/dev/null | tail -n 1
}

test_what_makes_no_sense_is_refused() {
	device=$(device_of)
	expect "another parent" "$(refused "$device@0000:00:00.0")" "owner: $device@0000:00:00.0: $ENODEV"
	expect "twice" "$(refused "$device" "$device")" "owner: $device: File exists"
	expect "to read only" "$(./poll_file /dev/virtio_device_stop 2>&1)" "poll_file: /dev/virtio_device_stop: $EACCES"
	refused=$(capsh --drop=cap_sys_admin --shell=/bin/sh -- -c "./owner" 2>&1 </dev/null)
	expect "without the right" "$refused" "owner: /dev/virtio_device_stop: $EPERM"
	owner "$device"
	asks "stop 600001" "$EINVAL"
	asks "stop 0 86400001" "$EINVAL"
	expect "state" "$(state)" running
	owner_goes
}

# All others run again, and what they do meanwhile is not lost.
test_all_or_none() {
	disk=$(device_of)
	find_type 8
	host=$(device_of)
	find_type 1
	nic=$(device_of)
	find_device
	for vdev in "$disk" "$host" "$nic"; do
		wait_until holds "$vdev/device_stop/state" running
	done
	start_fio
	owner "$host" "$disk" "$nic"
	asks stop ok
	for vdev in "$disk" "$host" "$nic"; do
		expect "state" "$(cat "$vdev/device_stop/state")" stopped
	done
	asks resume ok
	more_complete
	device_set acknowledge=never
	asks "stop 300" "$ETIMEDOUT $VDEV $(suspends && echo 14 || echo 0)"
	for vdev in "$host" "$nic"; do
		expect "state" "$(cat "$vdev/device_stop/state")" running
		expect "holder" "$(cat "$vdev/device_stop/holder")" none
	done
	device_set acknowledge=at-once
	wait_until state_is running
	more_complete
	# One that can't be stopped at all.
	find_type 4
	owner_goes
	owner "$disk" "$(device_of)"
	if suspends; then
		asks stop "$EOPNOTSUPP $VDEV 8"
	else
		asks stop ok
		asks resume ok
	fi
	owner_goes
	find_device
	expect "state" "$(state)" running
	more_complete
	stop_fio
}

test_random_calls() {
	find_type 8
	host=$(device_of)
	find_device
	start_fio
	./fuzz_owner "$CALLS" $$ "$(device_of)" "$host" || fail "fuzz_owner has failed"
	wait_until state_is running
	wait_until holds "$host/device_stop/state" running
	more_complete
	stop_fio
}

driver virtio_net virtio_scsi virtio_rng
run_tests test_holder_is_one_line test_stop_is_its_owner_s_own test_stop_ends_with_its_owner test_last_one_that_has_the_file_counts \
	test_owner_is_killed_while_it_stops test_owner_is_killed_while_it_resumes test_owner_is_killed_after_what_has_failed \
	test_stop_that_has_lapsed_is_told_of test_what_is_not_its_own_is_left_alone test_resume_by_root_is_under_way \
	test_root_has_resumed_in_vain test_stopped_device_needs_a_reset \
	test_stop_is_called_off_by_its_owner test_two_owners \
	test_lease_ends_what_its_owner_does_not test_one_that_has_not_resumed_is_asked_again test_device_that_leaves test_module_stays_while_a_file_is_open \
	test_what_makes_no_sense_is_refused test_all_or_none test_random_calls
