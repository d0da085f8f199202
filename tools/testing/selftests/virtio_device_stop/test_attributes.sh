#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# The files: what they hold, who may access them, and what they refuse.

. ./functions.sh

mode() {
	# shellcheck disable=SC2012 # functions.sh has the name stat
	ls -l "$STOP/$1" | cut -c 1-10
}

# file MODE NAME CONTENTS: CONTENTS is a pattern.
file() {
	expect "mode of $2" "$(mode "$2")" "$1"
	# shellcheck disable=SC2254 # a pattern
	case $(cat "$STOP/$2") in
	$3) ;;
	*) fail "$2 holds '$(cat "$STOP/$2")'" ;;
	esac
	expect "lines of $2" "$(wc -l <"$STOP/$2")" 1
}

test_modes_and_contents() {
	rmmod virtio_device_stop && insert_module || fail "the module can't be loaded anew"
	file -rw------- state running
	file -r-------- protocol "$PROTOCOL"
	file -r-------- reason none
	file -rw------- timeout_ms 1000
	file -rw------- lease_ms 60000
	expect "mode of renew" "$(mode renew)" --w-------
	expect "mode of renegotiate" "$(mode renegotiate)" --w-------
	file -r-------- generation '[0-9]*'
	file -r-------- in_flight unknown
	file -r-------- holder none
	file -rw------- force 0
	file -rw------- accept_bit39 0
	for name in stops resumes timeouts failures late_acks dropped lease_expiries suspend_cleared config_writes_dropped \
		last_stop_us last_resume_us last_status_reads; do
		file -r-------- "../device_stop_stats/$name" '[0-9]*'
	done
	expect "files" "$(cd "$STOP" && echo *)" "accept_bit39 force generation holder in_flight lease_ms protocol reason renegotiate renew state timeout_ms"
	expect "stats" "$(cd "${STOP}_stats" && echo * | wc -w)" 12
}

test_bad_text_is_refused() {
	for text in "" Stop "stop " " stop" stopp stopresume 1 $'stop\nresume'; do
		expect "state <- '$text'" "$(store "$STOP/state" "$text")" "$EINVAL"
	done
	expect "state" "$(state)" running
	expect "stop without a newline" "$(printf stop >"$STOP/state" && echo ok)" ok
	resume
}

test_empty_and_huge_writes_are_refused() {
	: >"$STOP/state" || fail "an empty write is an error"
	head -c 100000 /dev/zero | tr '\0' s >/tmp/huge
	if cat /tmp/huge >"$STOP/state" 2>/dev/null; then
		fail "a huge write is accepted"
	fi
	if cat /tmp/huge >"$STOP/timeout_ms" 2>/dev/null; then
		fail "a huge number is accepted"
	fi
	expect "state" "$(state)" running
	expect "timeout_ms" "$(cat "$STOP/timeout_ms")" $USUAL_TIMEOUT_MS
}

test_numbers_out_of_range_are_refused() {
	for number in 0 600001 4294967296; do
		case $(store "$STOP/timeout_ms" $number) in
		"$EINVAL" | "$ERANGE") ;;
		*) fail "$number is accepted" ;;
		esac
	done
	for text in -1 1.5 "" ten; do
		expect "timeout_ms <- '$text'" "$(store "$STOP/timeout_ms" "$text")" "$EINVAL"
	done
	expect "timeout_ms" "$(cat "$STOP/timeout_ms")" $USUAL_TIMEOUT_MS
	for number in 1 600000; do
		expect "timeout_ms <- $number" "$(store "$STOP/timeout_ms" $number)" ok
		expect "timeout_ms" "$(cat "$STOP/timeout_ms")" $number
	done
}

test_leases_out_of_range_are_refused() {
	for number in 86400001 4294967296 -1 1.5 "" ten; do
		case $(store "$STOP/lease_ms" "$number") in
		"$EINVAL" | "$ERANGE") ;;
		*) fail "$number is accepted" ;;
		esac
	done
	expect "lease_ms" "$(cat "$STOP/lease_ms")" 60000
	for number in 0 86400000; do
		expect "lease_ms <- $number" "$(store "$STOP/lease_ms" $number)" ok
		expect "lease_ms" "$(cat "$STOP/lease_ms")" $number
	done
	for text in -1 "" ten; do
		expect "renew <- '$text'" "$(store "$STOP/renew" "$text")" "$EINVAL"
	done
}

test_flags_are_0_or_1() {
	for name in force accept_bit39; do
		for text in 2 -1 "" yes 00; do
			expect "$name <- '$text'" "$(store "$STOP/$name" "$text")" "$EINVAL"
		done
		for text in 1 0; do
			expect "$name <- $text" "$(store "$STOP/$name" $text)" ok
			expect "$name" "$(cat "$STOP/$name")" $text
		done
	done
	# A type that may be stopped anyway is not affected.
	expect "state" "$(state)" running
}

test_files_that_can_not_be_written() {
	for name in protocol reason generation ../device_stop_stats/stops; do
		case $(store "$STOP/$name" 1) in
		"$EACCES" | "$EIO") ;;
		*) fail "$name can be written" ;;
		esac
	done
}

test_unprivileged_writes_are_refused() {
	if su nobody -c "echo stop >$STOP/state" 2>/dev/null; then
		fail "nobody may stop a device"
	fi
	if su nobody -c "cat $STOP/state" 2>/dev/null; then
		fail "nobody may read the state"
	fi
	refused=$(capsh --drop=cap_sys_admin --shell=/bin/sh -- -c "echo stop >$STOP/state" 2>&1)
	expect "root without CAP_SYS_ADMIN" "${refused##*: }" "$EPERM"
	expect "state" "$(state)" running
}

run_tests test_modes_and_contents test_bad_text_is_refused test_empty_and_huge_writes_are_refused \
	test_numbers_out_of_range_are_refused \
	test_leases_out_of_range_are_refused test_flags_are_0_or_1 \
	test_files_that_can_not_be_written test_unprivileged_writes_are_refused
