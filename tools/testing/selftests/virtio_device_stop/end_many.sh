#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_many.sh ROUNDS
#
# Many devices, disks, network devices and sources of entropy, are stopped and resumed at once, again and again, with I/O on all of
# them, while another disk comes and goes. By VIRTIO_F_SUSPEND only disks work meanwhile: other drivers may touch a stopped device.

. ./functions.sh

ROUNDS=$1

device_type() {
	echo $(($(cat "$1/device")))
}

set_up_all() {
	load_module
	modprobe -a virtio_blk virtio_net virtio_rng
	for disk in /sys/block/vd*; do
		DISKS="$DISKS ${disk##*/}"
	done
	for nic in /sys/class/net/*; do
		if [ -e "$nic/device" ]; then
			ip link set "${nic##*/}" up
			wait_until nic_is_up "${nic##*/}"
			NICS="$NICS ${nic##*/}"
		fi
	done
	for vdev in /sys/bus/virtio/devices/*; do
		expect "the state of a device of type $(device_type "$vdev")" "$(cat "$vdev/device_stop/state")" running
		VDEVS="$VDEVS $vdev"
		# A busy machine that emulates this one may be slow.
		echo 60000 >"$vdev/device_stop/timeout_ms"
	done
	# shellcheck disable=SC2086 # a word a device
	set -- $VDEVS
	expect "devices" $# 32
}

# nic_is_up NIC: what is sent before gets lost.
nic_is_up() {
	[ "$(cat "/sys/class/net/$1/operstate")" = up ]
}

# verify_disks: random writes to all, each verified later.
verify_disks() {
	for disk in $DISKS; do
		printf '[%s]\nfilename=/dev/%s\n' "$disk" "$disk"
	done >/tmp/jobs
	fio --thread --size=4M --rw=randwrite --bs=4k --iodepth=4 --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 \
		--verify_backlog=16 --verify_async=0 --time_based --runtime=3600 --eta=never /tmp/jobs >/tmp/fio 2>&1 &
	FIO=$!
	for disk in $DISKS; do
		wait_until is_written_to "$disk"
	done
}

# is_written_to DISK
is_written_to() {
	# shellcheck disable=SC2046 # a word a field
	set -- $(cat "/sys/block/$1/stat")
	[ "$5" -gt 0 ]
}

# exchange_frames NIC: until it is told to end; writes down what was lost.
exchange_frames() {
	while [ ! -e /tmp/enough ]; do
		frames "$1" 50 --window 8 --patience "$PATIENCE" >"/tmp/frames-$1" 2>&1 || echo "$1: $(cat "/tmp/frames-$1")" >>/tmp/lost
	done
}

read_entropy() {
	while [ ! -e /tmp/enough ]; do
		head -c 16 /dev/hwrng >/dev/null || echo "no entropy" >>/tmp/lost
	done
}

plug_and_unplug() {
	plugs=0
	while [ ! -e /tmp/enough ]; do
		plug
		[ "$(store "/sys/block/$DISK/device/device_stop/state" stop)" = ok ] || echo "the disk that came was not stopped" >>/tmp/lost
		unplug
		plugs=$((plugs + 1))
		echo $plugs >/tmp/plugs
	done
}

groups() {
	for vdev in $VDEVS; do
		echo "$vdev/device_stop/state stop $vdev/device_stop/state resume"
	done
}

test_many_at_once() {
	set_up_all
	verify_disks
	for nic in $NICS; do
		exchange_frames "$nic" &
	done
	suspends || read_entropy &
	DEVICE=plugged
	plug_and_unplug &
	storm=$!
	# shellcheck disable=SC2046 # a word an argument
	./at_once "$ROUNDS" $(groups) >/tmp/at_once 2>&1 || fail "$(cat /tmp/at_once)"
	touch /tmp/enough
	stop_fio
	wait_until has_ended $storm
	wait
	[ ! -s /tmp/lost ] || fail "$(cat /tmp/lost)"
	[ -s /tmp/plugs ] || fail "the other disk has not come and gone"
	for vdev in $VDEVS; do
		expect "the state of a device of type $(device_type "$vdev")" "$(cat "$vdev/device_stop/state")" running
		expect "stops" "$(cat "$vdev/device_stop_stats/stops")" "$ROUNDS"
		expect "resumes" "$(cat "$vdev/device_stop_stats/resumes")" "$ROUNDS"
	done
	echo "# $(cat /tmp/at_once) us a time, with the other disk coming $(cat /tmp/plugs) times"
}

has_ended() {
	! kill -0 "$1" 2>/dev/null
}

if (test_many_at_once) && dmesg_is_clean; then echo "ok many_at_once"; else echo "not ok many_at_once"; fi
