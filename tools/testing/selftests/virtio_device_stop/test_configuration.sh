#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# A driver that writes to its device's configuration space while that is stopped: it waits under VIRTIO_F_SUSPEND, which forbids the
# write. VIRTIO_F_DEVICE_STOP does not.

. ./functions.sh

mode() {
	cat "/sys/block/$DISK/cache_type"
}

# The device's view.
has_cache() {
	[ "$(device_get of_type.writeback)" = "$1" ]
}

rebind() {
	[ -e "/sys/bus/virtio/devices/$VDEV/driver" ] || echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	DISK=$(disk "$DEVICE")
}

# The name and the number of the disk may be others.
bring_back() {
	store "$STOP/state" resume >/dev/null
	store "$STOP/timeout_ms" $USUAL_TIMEOUT_MS >/dev/null
	rebind
	find_vdev
	wait_until state_is running
	holds "$STOP/reason" none || { stop && resume; }
}

clean_up() {
	device_do behave
	load_module
	is_as_at_first || bring_back
	echo "write back" >"/sys/block/$DISK/cache_type"
	has_cache true || fail "the cache can't be switched on"
}

# start_writer: sets WRITER.
start_writer() {
	echo "write through" >"/sys/block/$DISK/cache_type" &
	WRITER=$!
}

writer_waits_for_the_device() {
	wait_until hangs "$WRITER"
	has_cache true || fail "a stopped device was configured"
}

test_write_waits_until_the_device_runs() {
	stop
	if suspends; then
		start_writer
		writer_waits_for_the_device
		resume
		wait "$WRITER" || fail "the write has failed"
	else
		echo "write through" >"/sys/block/$DISK/cache_type"
		has_cache false || fail "the device was not configured"
		resume
	fi
	wait_until has_cache false
	expect "mode" "$(mode)" "write through"
	expect "dropped" "$(stat config_writes_dropped)" 0
	io_works
}

test_write_waits_for_one_that_does_not_resume_yet() {
	suspends || return 0
	stop
	device_never_resumes
	store "$STOP/timeout_ms" 100 >/dev/null
	start_writer
	writer_waits_for_the_device
	expect "resume" "$(store "$STOP/state" resume)" "$ETIMEDOUT"
	writer_waits_for_the_device
	device_set resume=at-once
	wait "$WRITER" || fail "the write has failed"
	wait_until has_cache false
	io_works
}

test_write_of_a_task_that_is_killed_is_dropped() {
	suspends || return 0
	dropped=$(stat config_writes_dropped)
	stop
	start_writer
	writer_waits_for_the_device
	kill -9 "$WRITER"
	wait_until has_ended "$WRITER"
	expect "dropped" "$(stat config_writes_dropped)" $((dropped + 1))
	resume
	has_cache true || fail "what was dropped was written"
	io_works
}

test_unbind_ends_the_wait() {
	suspends || return 0
	stop
	start_writer
	writer_waits_for_the_device
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	wait_until has_ended "$WRITER"
	rebind
	find_vdev
	expect "state" "$(state)" running
	io_works
}

# The write is dropped: it would be forbidden.
test_unbind_of_one_that_does_not_resume_ends_the_wait() {
	suspends || return 0
	stop
	device_never_resumes
	store "$STOP/timeout_ms" 100 >/dev/null
	dropped=$(stat config_writes_dropped)
	start_writer
	writer_waits_for_the_device
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	wait_until has_ended "$WRITER"
	expect "dropped" "$(stat config_writes_dropped)" $((dropped + 1))
	device_do behave
	rebind
	find_vdev
	io_works
}

test_unload_ends_the_wait() {
	suspends || return 0
	stop
	start_writer
	writer_waits_for_the_device
	rmmod virtio_device_stop || fail "the module can't be unloaded"
	wait "$WRITER" || fail "the write has failed"
	has_cache false || fail "the write was lost"
	load_module
	io_works
}

# A stop begins between two writes, or waits for one.
test_stops_among_writes() {
	rm -f /tmp/enough
	while [ ! -e /tmp/enough ]; do
		echo "write through" >"/sys/block/$DISK/cache_type"
		echo "write back" >"/sys/block/$DISK/cache_type"
	done &
	writer=$!
	cycle=0
	while [ $cycle -lt 20 ]; do
		stop
		resume
		cycle=$((cycle + 1))
	done
	touch /tmp/enough
	wait $writer
	wait_until has_cache true
	io_works
}

run_tests test_write_waits_until_the_device_runs test_write_waits_for_one_that_does_not_resume_yet \
	test_write_of_a_task_that_is_killed_is_dropped test_unbind_ends_the_wait \
	test_unbind_of_one_that_does_not_resume_ends_the_wait test_unload_ends_the_wait test_stops_among_writes
