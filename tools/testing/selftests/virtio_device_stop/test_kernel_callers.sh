#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# Other modules stop devices: those of samples/kernel-callers, stop_disk in C and stop_device in Rust, from when they are loaded until
# they are unloaded.

. ./functions.sh

clean_up() {
	device_do behave
	unload
	load_module
	is_as_at_first || bring_back
}

unload() {
	for sample in stop_disk stop_device; do
		[ ! -d /sys/module/$sample ] || rmmod $sample
	done
}

# load SAMPLE ARGUMENT...: prints why it can't be loaded, or "ok".
load() {
	sample=$1
	shift
	if message=$(insmod "$sample.ko" "$@" 2>&1); then
		echo ok
	else
		echo "${message##*: }"
	fi
}

# says TEXT: the last message of a sample.
says() {
	expect "message" "$(dmesg | sed -n 's/.*stop_d[a-z]*: //p' | tail -n 1)" "$1"
}

# stands_until_unloaded SAMPLE ARGUMENT
stands_until_unloaded() {
	start_fio
	stops=$(stat stops)
	expect "insmod" "$(load "$1" "$2")" ok
	expect "state" "$(state)" stopped
	expect "stops" "$(stat stops)" $((stops + 1))
	case $(cat "$STOP/holder") in *" insmod") ;; *) fail "holder is $(cat "$STOP/holder")" ;; esac
	wait_until waiting_at_least 1
	completed=$(device_get counters.requests.completed)
	expect "stop" "$(store "$STOP/state" stop)" "$EBUSY"
	expect "resume" "$(store "$STOP/state" resume)" "$EBUSY"
	expect "renew" "$(store "$STOP/renew" "$(cat "$STOP/generation")")" ok
	! rmmod virtio_device_stop 2>/dev/null || fail "unloaded while others use it"
	expect "state" "$(state)" stopped
	expect "requests completed" "$(device_get counters.requests.completed)" "$completed"
	rmmod "$1" || fail "can't be unloaded"
	wait_until state_is running
	expect "holder" "$(cat "$STOP/holder")" none
	more_complete
	stop_fio
}

test_stop_by_c() {
	stands_until_unloaded stop_disk "disk=/dev/$DISK"
	says "/dev/$DISK stood still, and runs again"
}

test_stop_by_rust() {
	stands_until_unloaded stop_device "index=${VDEV#virtio}"
	says "it stands still, and resumes"
}

# What has stopped before has a lease, and this one has not.
test_stop_has_no_lease() {
	store "$STOP/lease_ms" 50 >/dev/null
	expect "insmod" "$(load stop_disk "disk=/dev/$DISK")" ok
	generation=$(cat "$STOP/generation")
	driver virtio_net
	other=/sys/bus/virtio/devices/$(find_type 1 && echo "$VDEV")/device_stop
	store "$other/lease_ms" 200 >/dev/null
	expect "stop" "$(store "$other/state" stop)" ok
	wait_until holds "$other/reason" lease_expired
	store "$other/lease_ms" 60000 >/dev/null
	expect "state" "$(state)" stopped
	expect "generation" "$(cat "$STOP/generation")" "$generation"
	rmmod stop_disk
	says "/dev/$DISK stood still, and runs again"
}

force() {
	expect "resume" "$(store "$STOP/state" "resume force")" ok
	expect "state" "$(state)" running
}

test_stop_that_root_has_ended() {
	expect "insmod" "$(load stop_disk "disk=/dev/$DISK")" ok
	force
	stop
	rmmod stop_disk
	says "/dev/$DISK did not stand still, or does not resume: -116"
	expect "state" "$(state)" stopped
	resume
	expect "insmod" "$(load stop_device "index=${VDEV#virtio}")" ok
	force
	rmmod stop_device
	says "it did not stand still, or does not tell: -116"
	expect "state" "$(state)" running
}

test_driver_is_unbound() {
	for sample in "stop_disk disk=/dev/$DISK" "stop_device index=${VDEV#virtio}"; do
		# shellcheck disable=SC2086 # two words
		expect "insmod" "$(load $sample)" ok
		bind_again
		expect "state" "$(state)" running
		rmmod "${sample% *}"
		expect "state" "$(state)" running
	done
	dmesg | grep -q "stop_disk: /dev/$DISK did not stand still, or does not resume: -116" || fail "stop_disk does not say so"
	says "it did not stand still, or does not tell: -116"
}

test_device_is_removed() {
	for sample in "stop_disk disk=/dev/$DISK" "stop_device index=${VDEV#virtio}"; do
		# shellcheck disable=SC2086 # two words
		expect "insmod" "$(load $sample)" ok
		echo 1 >"$(pci)/remove"
		[ ! -e "$STOP" ] || fail "it is there still"
		rmmod "${sample% *}"
		bring_back
	done
	dmesg | grep -q 'stop_disk: .* did not stand still, or does not resume: -19' || fail "stop_disk does not say so"
	says "it did not stand still, or does not tell: -19"
}

test_refused() {
	for sample in "stop_disk disk=/dev/$DISK" "stop_device index=${VDEV#virtio}"; do
		stop
		# shellcheck disable=SC2086 # two words
		expect "insmod" "$(load $sample)" "$EBUSY"
		expect "state" "$(state)" stopped
		resume
		device_set acknowledge=never
		store "$STOP/timeout_ms" 200 >/dev/null
		# shellcheck disable=SC2086 # two words
		expect "insmod" "$(load $sample)" "$ETIMEDOUT"
		device_set acknowledge=at-once
		wait_until state_is running
		store "$STOP/timeout_ms" $USUAL_TIMEOUT_MS >/dev/null
	done
	expect "insmod" "$(load stop_device index=4000000000)" "$ENODEV"
	modprobe loop 2>/dev/null || return 0
	expect "insmod" "$(load stop_disk disk=/dev/loop0)" "$ENODEV"
	expect "samples" "$(ls -d /sys/module/stop_d* 2>/dev/null)" ""
}

test_several_stop_together() {
	set -- "$DISK" "$VDEV" "$STOP"
	DISK=$(disk ambiguous)
	find_vdev
	store "$STOP/accept_bit39" 1 >/dev/null
	bind_disk ambiguous
	expect "insmod" "$(load stop_disk "disk=/dev/$1,/dev/$DISK")" ok
	expect "state" "$(state)" stopped
	holds "$3/state" stopped || fail "the other one has not stopped"
	rmmod stop_disk
	says "/dev/$1 stood still, and runs again"
	wait_until holds "$3/state" running
	wait_until state_is running
	# All, or none.
	stop
	expect "insmod" "$(load stop_disk "disk=/dev/$1,/dev/$DISK")" "$EBUSY"
	wait_until holds "$3/state" running
	expect "state" "$(state)" stopped
	resume
	expect "insmod" "$(load stop_device "index=${2#virtio}" "other=${VDEV#virtio}")" ok
	expect "state" "$(state)" stopped
	holds "$3/state" stopped || fail "the other one has not stopped"
	rmmod stop_device
	wait_until holds "$3/state" running
	wait_until state_is running
	# That is EEXIST, which the kernel keeps for modules that are there already.
	expect "insmod" "$(load stop_device "index=${2#virtio}" "other=${2#virtio}")" "$EBUSY"
	expect "insmod" "$(load stop_device "index=${2#virtio}" other=2000000000)" "$ENODEV"
	holds "$3/state" running || fail "one was stopped, and the other was not"
	store "$STOP/accept_bit39" 0 >/dev/null
	bind_disk ambiguous
	DISK=$1 VDEV=$2 STOP=$3
}

bind_disk() {
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	DISK=$(disk "$1")
	find_vdev
}

test_caller_chooses_how_long_a_stop_may_take() {
	expect "insmod" "$(load stop_disk "disk=/dev/$DISK" timeout_ms=600001)" "$EINVAL"
	expect "state" "$(state)" running
	device_set acknowledge=never
	store "$STOP/timeout_ms" 600000 >/dev/null
	load stop_disk "disk=/dev/$DISK" timeout_ms=200 >/tmp/insmod &
	wait_until has_ended $!
	expect "insmod" "$(cat /tmp/insmod)" "$ETIMEDOUT"
	device_set acknowledge=at-once
	wait_until state_is running
}

# What a device shows that is no answer proves nothing.
test_look_at_one_that_does_not_tell() {
	resumes_may_be_late
	expect "insmod" "$(load stop_device "index=${VDEV#virtio}")" ok
	device_set show_status=always:0xff
	rmmod stop_device
	says "it did not stand still, or does not tell: -11"
	device_set show_status=as-is
	wait_until state_is running
}

run_tests test_stop_by_c test_stop_by_rust test_stop_has_no_lease test_stop_that_root_has_ended test_driver_is_unbound \
	test_device_is_removed test_several_stop_together test_caller_chooses_how_long_a_stop_may_take \
	test_look_at_one_that_does_not_tell test_refused
