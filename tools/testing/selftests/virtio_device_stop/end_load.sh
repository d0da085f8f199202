#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_load.sh CYCLES
#
# A disk and a SCSI host, each with four virtqueues, under verified I/O from four processors, are stopped and resumed at once, again and
# again. Their names are "disk" and "host".

. ./functions.sh

CYCLES=$1

# load_on FILE...: random writes to all, from four processes each, verified later.
load_on() {
	for file; do
		printf '[%s]\nfilename=%s\n' "${file##*/}" "$file"
	done >/tmp/jobs
	fio --numjobs=4 --size=4M --offset_increment=4M --rw=randwrite --bs=4k --iodepth=8 --ioengine=libaio --direct=1 --verify=crc32c \
		--verify_fatal=1 --verify_backlog=64 --verify_async=0 --time_based --runtime=7200 --eta=never --thread \
		/tmp/jobs >/tmp/fio 2>&1 &
	FIO=$!
}

# failed_requests: of both. A SCSI host has been asked for units that it has not got.
failed_requests() {
	for DEVICE in disk host; do
		device_get counters.requests.failed
	done
}

# counted DEVICE: what it has to say of the stops.
counted() {
	DEVICE=$1
	expect "stops of $1" "$(device_get counters.stops.acknowledged)" "$CYCLES"
	expect "resumes of $1" "$(device_get counters.stops.resumed)" "$CYCLES"
	expect "stops of $1 with requests left" "$(device_get counters.stops.acknowledged_with_requests)" 0
	expect "requests that $1 has taken while stopped" "$(device_get counters.requests.taken_while_stopped)" 0
	echo "# $1 had requests at $(device_get counters.stops.requested_with_requests) of $CYCLES stops"
}

test_load() {
	modprobe -a virtio_blk virtio_scsi sd_mod
	find_type 8
	host=$STOP
	find_device
	expect "virtqueues" "$(find "/sys/block/$DISK/mq" -mindepth 1 -maxdepth 1 | wc -l)" 4
	for unit in 0 1; do
		wait_until unit_is_there $unit
	done
	for stop in "$STOP" "$host"; do
		echo 600000 >"$stop/timeout_ms"
		echo 0 >"$stop/lease_ms"
	done
	load_on "/dev/$DISK" /dev/sda /dev/sdb
	for DEVICE in disk host; do
		more_complete
	done
	failed=$(failed_requests)
	DEVICE=disk
	before=$(device_get counters.requests.completed)
	./at_once "$CYCLES" "$STOP/state" stop "$STOP/state" resume "$host/state" stop "$host/state" resume >/tmp/at_once 2>&1 ||
		fail "$(cat /tmp/at_once)"
	echo "# $(($(device_get counters.requests.completed) - before)) requests were completed meanwhile"
	for DEVICE in disk host; do
		more_complete
	done
	stop_fio
	expect "failed requests" "$(failed_requests)" "$failed"
	counted disk
	counted host
	echo "# $(cat /tmp/at_once) us a time"
}

# unit_is_there NUMBER
unit_is_there() {
	[ -e "$(echo /sys/bus/virtio/devices/*/host*/target*/*:0:"$1"/block/*)" ]
}

DEVICE=disk
load_module
if (test_load) && dmesg_is_clean; then echo "ok load"; else echo "not ok load"; fi
