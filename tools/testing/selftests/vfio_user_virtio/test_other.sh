#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# The entropy device, and a device that takes buffers and keeps them.

. ./functions.sh

# use_rng NAME: entropy sources are numbered in the order of their devices.
use_rng() {
	echo "$1" >/sys/class/misc/hw_random/rng_current || fail "no $1 among $(cat /sys/class/misc/hw_random/rng_available)"
}

test_entropy() {
	DEVICE=entropy
	use_rng virtio_rng.0
	before=$(kind entropy)
	dd if=/dev/hwrng of=/tmp/random bs=512 count=4 2>/dev/null || fail "no entropy"
	expect "bytes" "$(wc -c </tmp/random)" 2048
	if head -c 2048 /dev/zero | cmp -s - /tmp/random; then
		fail "all zeroes"
	fi
	[ "$(kind entropy)" -gt "$before" ] || fail "no request has come"
}

test_entropy_goes_on_when_requests_fail() {
	DEVICE=entropy
	use_rng virtio_rng.0
	device_set io_error_every=1
	dd if=/dev/hwrng of=/tmp/random bs=16 count=2 2>/dev/null || fail "no entropy from a device that fails"
	device_do behave
	expect "bytes" "$(wc -c </tmp/random)" 32
	[ "$(device_get counters.requests.failed)" -gt 0 ] || fail "no request has failed"
	dd if=/dev/hwrng of=/tmp/random bs=512 count=1 2>/dev/null || fail "no entropy afterwards"
}

a_buffer_is_kept() {
	[ "$(device_get counters.requests.kept)" -gt 0 ]
}

test_null_keeps_what_it_takes() {
	DEVICE=dull
	expect "type" "$(device_get type)" '"null"'
	wait_until a_buffer_is_kept
	expect "completed" "$(device_get counters.requests.completed)" 0
	expect "in flight" "$(device_get counters.requests.in_flight)" 0
}

run_tests test_entropy test_entropy_goes_on_when_requests_fail test_null_keeps_what_it_takes
