#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# A stop ends by itself when nobody ends it: after 60 s.

. ./functions.sh

# shellcheck disable=SC2034 # for functions.sh
PATIENCE=180

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

run_tests test_stop_of_a_killed_agent_ends
