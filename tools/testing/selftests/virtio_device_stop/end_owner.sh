#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_owner.sh CALLS
#
# One owner of many devices, disks, network devices and sources of entropy, with I/O on all disks and network devices.

. ./functions.sh
. ./owner.sh

CALLS=$1

# nic_is_up NIC: what is sent before gets lost.
nic_is_up() {
	holds "/sys/class/net/$1/operstate" up
}

set_up_all() {
	load_module
	modprobe -a virtio_blk virtio_net virtio_rng
	for disk in /sys/block/vd*; do
		DISKS="$DISKS ${disk##*/}"
	done
	for nic in /sys/class/net/*; do
		[ -e "$nic/device" ] || continue
		ip link set "${nic##*/}" up
		wait_until nic_is_up "${nic##*/}"
		NICS="$NICS ${nic##*/}"
	done
	for vdev in /sys/bus/virtio/devices/*; do
		holds "$vdev/device_stop/state" running || fail "$vdev can't be stopped"
		VDEVS="$VDEVS $vdev"
	done
	# shellcheck disable=SC2086 # a word a device
	set -- $VDEVS
	expect "devices" $# 32
	FIRST=$1
}

# use_disks: random writes to all, each verified later.
use_disks() {
	for disk in $DISKS; do
		printf '[%s]\nfilename=/dev/%s\n' "$disk" "$disk"
	done >/tmp/jobs
	fio --thread --size=4M --rw=randwrite --bs=4k --iodepth=2 --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 \
		--verify_backlog=16 --verify_async=0 --time_based --runtime=3600 --eta=never /tmp/jobs >/tmp/fio 2>&1 &
	FIO=$!
	all_disks_are_used
}

# all_disks_are_used: each completes more.
all_disks_are_used() {
	for disk in $DISKS; do
		written=$(written_to "$disk")
		wait_until more_is_written_to "$disk" "$written"
	done
}

# written_to DISK: requests.
written_to() {
	# shellcheck disable=SC2046 # a word a field
	set -- $(cat "/sys/block/$1/stat")
	echo "$5"
}

# more_is_written_to DISK THAN
more_is_written_to() {
	[ "$(written_to "$1")" -gt "$2" ]
}

# exchange_frames NIC: until it is told to end; writes down what was lost.
exchange_frames() {
	while [ ! -e /tmp/enough ]; do
		frames "$1" 50 --window 8 --patience "$PATIENCE" >"/tmp/frames-$1" 2>&1 || echo "$1: $(cat "/tmp/frames-$1")" >>/tmp/lost
	done
}

start_all() {
	use_disks
	rm -f /tmp/enough
	for nic in $NICS; do
		exchange_frames "$nic" &
		EXCHANGES="$EXCHANGES $!"
	done
}

end_all() {
	touch /tmp/enough
	stop_fio
	# shellcheck disable=SC2086 # a word a process
	wait $EXCHANGES
	[ ! -s /tmp/lost ] || fail "$(cat /tmp/lost)"
}

# all_are STATE
all_are() {
	for vdev in $VDEVS; do
		holds "$vdev/device_stop/state" "$1" || return
	done
}

# every_device SETTING=VALUE: as tools/testing/devices.sh names them.
every_device() {
	number=0
	while [ $number -lt 32 ]; do
		case $PROTOCOL-$((number % 8)) in
		device_stop-[3-5] | suspend-[3-6]) DEVICE=nic$number ;;
		device_stop-[67]) DEVICE=entropy$number ;;
		*) DEVICE=disk$number ;;
		esac
		device_set "$@"
		number=$((number + 1))
	done
}

# took COMMAND...: sets TOOK to how many milliseconds.
took() {
	now
	begin=$NOW
	"$@"
	now
	TOOK=$((NOW - begin))
}

# The device takes 3 s each: one after the other would be 96.
test_all_stop_together() {
	every_device acknowledge=after:3000
	start_all
	owner "$FIRST"
	took asks "stop 60000" ok
	one=$TOOK
	asks resume ok
	owner_goes
	# shellcheck disable=SC2086 # a word a device
	owner $VDEVS
	took asks "stop 60000" ok
	all=$TOOK
	all_are stopped || fail "not all have stopped"
	[ $((2 * all)) -le $((3 * one)) ] || fail "one takes $one ms, all take $all ms"
	asks resume ok
	all_are running || fail "not all run"
	all_disks_are_used
	end_all
	owner_goes
	echo "# one takes $one ms, 32 take $all ms"
}

test_all_or_none() {
	every_device acknowledge=at-once
	start_all
	# shellcheck disable=SC2086 # a word a device
	owner $VDEVS
	DEVICE=disk9
	device_set acknowledge=never
	owner_says "stop 1000"
	case $SAID in "$ETIMEDOUT virtio"*) ;; *) fail "stop: $SAID" ;; esac
	culprit=${SAID#*virtio}
	culprit=virtio${culprit%% *}
	for vdev in $VDEVS; do
		[ "${vdev##*/}" = "$culprit" ] || expect "$vdev" "$(cat "$vdev/device_stop/state")" running
	done
	device_set acknowledge=at-once
	wait_until all_are running
	all_disks_are_used
	asks stop ok
	asks resume ok
	end_all
	owner_goes
}

test_random_calls() {
	start_all
	# Few, or most calls would wait for a long stop.
	# shellcheck disable=SC2086 # a word a device
	set -- $VDEVS
	./fuzz_owner "$CALLS" $$ "$1" "$2" "$4" || fail "fuzz_owner has failed"
	wait_until all_are running
	all_disks_are_used
	end_all
	echo "# $CALLS calls"
}

set_up_all
for test in all_stop_together all_or_none random_calls; do
	if ("test_$test") && (wait_until nobody_hangs) && dmesg_is_clean; then echo "ok $test"; else echo "not ok $test"; fi
done
