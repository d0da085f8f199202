#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# A stop ends by itself when nobody ends it, unless its lease is renewed, or there is none.

. ./functions.sh

test_stop_of_a_killed_agent_ends() {
	expiries=$(stat lease_expiries)
	now
	begin=$NOW
	sh -c "echo stop >$STOP/state && exec tail -f /dev/null" &
	agent=$!
	wait_until state_is stopped
	dd if="/dev/$DISK" of=/dev/null bs=4k count=1 iflag=direct 2>/tmp/dd &
	reader=$!
	kill -9 $agent
	wait $agent
	wait_until stat_is lease_expiries $((expiries + 1))
	now
	[ $((NOW - begin)) -ge 59000 ] || fail "the lease has ended too early"
	wait $reader || fail "the waiting read was lost: $(cat /tmp/dd)"
	expect "state" "$(state)" running
	expect "reason" "$(cat "$STOP/reason")" lease_expired
	expect "the first resume" "$(store "$STOP/state" resume)" "$ESTALE"
	expect "the second" "$(store "$STOP/state" resume)" ok
	stop
	resume
	io_works
}

test_lease_is_what_the_agent_has_chosen() {
	expiries=$(stat lease_expiries)
	# The first stop's lease is that of the second, if it does not end soon.
	store "$STOP/lease_ms" 86400000 >/dev/null
	stop
	resume
	store "$STOP/lease_ms" 1000 >/dev/null
	now
	begin=$NOW
	expect "stop" "$(store "$STOP/state" stop)" ok
	wait_until stat_is lease_expiries $((expiries + 1))
	now
	[ $((NOW - begin)) -ge 990 ] || fail "the lease has ended too early"
	expect "reason" "$(cat "$STOP/reason")" lease_expired
}

older_than() {
	now
	[ $((NOW - begin)) -ge "$1" ]
}

# renewed_in_time LEASE_MS: the stop was renewed, for a minute, before that lease was over. A slow machine may need a longer one.
renewed_in_time() {
	store "$STOP/lease_ms" "$1" >/dev/null
	expect "stop" "$(store "$STOP/state" stop)" ok
	generation=$(cat "$STOP/generation")
	now
	begin=$NOW
	store "$STOP/lease_ms" 60000 >/dev/null
	case $(store "$STOP/renew" "$generation") in
	ok) return 0 ;;
	"$ESTALE") store "$STOP/state" resume >/dev/null ;;
	*) fail "it can't be renewed" ;;
	esac
	return 1
}

test_renewed_lease_lasts() {
	lease=2000
	until renewed_in_time $lease; do
		[ $((lease *= 2)) -le 16000 ] || fail "it is never renewed in time"
	done
	expiries=$(stat lease_expiries)
	wait_until older_than $((lease + 1000))
	expect "generation" "$(cat "$STOP/generation")" "$generation"
	expect "lease_expiries" "$(stat lease_expiries)" "$expiries"
	# A renewal does not shorten it.
	store "$STOP/lease_ms" 1 >/dev/null
	expect "renew" "$(store "$STOP/renew" "$generation")" ok
	now
	begin=$NOW
	wait_until older_than 1000
	expect "state" "$(state)" stopped
	resume
	expect "renew after the resume" "$(store "$STOP/renew" "$generation")" "$ESTALE"
	store "$STOP/lease_ms" 60000 >/dev/null
	stop
	expect "renew of the stop before" "$(store "$STOP/renew" "$generation")" "$ESTALE"
	# What looks for the disk would wait for the end of the lease.
	resume
}

# Two agents stop the same device, the first one's stop ends behind its back, and it is late to resume.
test_exact_resume_ends_no_other_stop() {
	stop
	first=$(cat "$STOP/generation")
	store "$STOP/lease_ms" 1 >/dev/null
	resume
	expiries=$(stat lease_expiries)
	expect "stop" "$(store "$STOP/state" stop)" ok
	wait_until stat_is lease_expiries $((expiries + 1))
	store "$STOP/lease_ms" 60000 >/dev/null
	stop
	expect "the first agent's resume" "$(store "$STOP/state" "resume $first")" "$ESTALE"
	expect "state" "$(state)" stopped
	second=$(cat "$STOP/generation")
	expect "the second agent's resume" "$(store "$STOP/state" "resume $second")" ok
	expect "its resume again" "$(store "$STOP/state" "resume $second")" "$ESTALE"
	expect "state" "$(state)" running
	for text in "resume " "resume x" "resume -1" "resume 1 2" "resumed"; do
		expect "'$text'" "$(store "$STOP/state" "$text")" "$EINVAL"
	done
}

test_stop_without_a_lease() {
	store "$STOP/lease_ms" 0 >/dev/null
	stop
	generation=$(cat "$STOP/generation")
	now
	begin=$NOW
	store "$STOP/lease_ms" 1 >/dev/null
	wait_until older_than 1000
	expect "generation" "$(cat "$STOP/generation")" "$generation"
	expect "renew" "$(store "$STOP/renew" "$generation")" ok
	wait_until state_is running
	expect "reason" "$(cat "$STOP/reason")" lease_expired
}

# A timer that goes off later would find nothing where the module was.
test_timer_goes_with_the_module() {
	store "$STOP/lease_ms" 2000 >/dev/null
	stop
	now
	begin=$NOW
	rmmod virtio_device_stop || fail "the module can't be unloaded"
	wait_until older_than 3000
	load_module
	expect "state" "$(state)" running
}

run_tests test_stop_of_a_killed_agent_ends test_lease_is_what_the_agent_has_chosen test_renewed_lease_lasts test_exact_resume_ends_no_other_stop \
	test_stop_without_a_lease test_timer_goes_with_the_module
