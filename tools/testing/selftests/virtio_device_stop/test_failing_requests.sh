#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: test_failing_requests.sh [CYCLES]
#
# Requests that the kernel lets fail before the driver gets them, at random: stops and resumes are what they were, and nothing else is
# lost. Only a kernel with CONFIG_FAIL_MAKE_REQUEST can do that.

. ./functions.sh
. ./owner.sh

# How often the disk is stopped in each test, when this is not said.
CYCLES=${1:-20}

FAULTS=/sys/kernel/debug/fail_make_request

# requests_fail PERCENT: of those of the disk; until the test has ended, however it does.
requests_fail() {
	trap 'echo 0 >$FAULTS/probability; echo 0 >"/sys/block/$DISK/make-it-fail"' EXIT
	echo 1 >"/sys/block/$DISK/make-it-fail"
	echo "$1" >$FAULTS/probability
}

# As fio, which start_fio starts, but with errors: each write that has not failed is verified.
start_failing_fio() {
	requests_fail 20
	fio --name=verify --filename="/dev/$DISK" --size=32M --rw=randwrite --bs=4k --iodepth=16 --ioengine=libaio --direct=1 \
		--verify=crc32c --verify_fatal=1 --verify_backlog=64 --verify_async=0 --continue_on_error=io --time_based --runtime=1800 \
		--eta=never >/tmp/fio 2>&1 &
	FIO=$!
	more_complete
}

# It was told of errors, of none but these, and has read nothing but what it had written.
stop_failing_fio() {
	end_fio
	requests_fail 0
	if grep -qi 'verify: bad\|verify failed' /tmp/fio || ! grep -q 'errors *: total=[1-9][0-9]*, first_error=5/' /tmp/fio; then
		sed 's/^/# /' /tmp/fio
		fail "fio has seen no errors, or others"
	fi
}

# Under VIRTIO_F_DEVICE_STOP, the driver may have given the device another one since.
nothing_in_flight() {
	! suspends || wait_until holds "$STOP/in_flight" 0
	expect "requests in flight" "$(device_get counters.requests.in_flight)" 0
}

is_as_before() {
	is_as_at_first || fail "it is not as before: $(state), $(cat "$STOP/reason")"
	expect "holder" "$(cat "$STOP/holder")" none
	io_works
}

# cycle COMMAND...
cycle() {
	number=0
	while [ $number -lt "$CYCLES" ]; do
		# What a test says is shown at its end only: whoever runs it would take it for one that stands still.
		echo "# $1: $number of $CYCLES" >"/proc/$$/fd/1"
		"$@"
		more_complete
		number=$((number + 1))
	done
}

stop_and_resume() {
	stop
	nothing_in_flight
	resume
}

test_stops_by_sysfs() {
	start_failing_fio
	cycle stop_and_resume
	stop_failing_fio
	is_as_before
}

owner_stops_and_resumes() {
	asks stop ok
	expect "state" "$(state)" stopped
	nothing_in_flight
	asks resume ok
	expect "state" "$(state)" running
}

test_stops_by_an_owner() {
	start_failing_fio
	owner "/sys/bus/virtio/devices/$VDEV"
	cycle owner_stops_and_resumes
	asks stop ok
	owner_goes
	wait_until state_is running
	more_complete
	stop_failing_fio
	is_as_before
}

# Those that fail need no driver; the others wait for it.
test_requests_fail_while_the_disk_is_stopped() {
	stop
	requests_fail 100
	expect "bytes read" "$(dd if="/dev/$DISK" bs=4k count=1 iflag=direct 2>/dev/null | wc -c)" 0
	requests_fail 0
	start_reader
	nothing_in_flight
	resume
	reader_is_done
	is_as_before
}

# The device keeps what was not written down: it is not reset.
test_disk_that_can_not_be_flushed_is_not_negotiated_with() {
	wait_until rmmod virtio_device_stop
	bind_again
	load_module
	resets=$(device_get counters.resets)
	requests_fail 100
	expect "renegotiate" "$(store "$STOP/renegotiate" 1)" "$EIO"
	expect "state" "$(state) $(cat "$STOP/reason")" "unavailable bound_before"
	expect "resets" "$(device_get counters.resets)" "$resets"
	requests_fail 0
	io_works
	expect "renegotiate" "$(store "$STOP/renegotiate" 1)" ok
	is_as_before
}

if [ ! -d $FAULTS ]; then
	ktap_print_header
	ktap_skip_all "the kernel has no CONFIG_FAIL_MAKE_REQUEST"
	exit "$KSFT_SKIP"
fi
# However often, and without a word to the log.
echo -1 >$FAULTS/times
echo 0 >$FAULTS/verbose

run_tests test_stops_by_sysfs test_stops_by_an_owner test_requests_fail_while_the_disk_is_stopped \
	test_disk_that_can_not_be_flushed_is_not_negotiated_with
