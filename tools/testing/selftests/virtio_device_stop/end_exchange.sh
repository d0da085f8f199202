#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# usage: end_exchange.sh CYCLES
#
# The process of the devices is exchanged while they are stopped, under load. They are "disk", with a mounted file system, "host", with
# two SCSI disks, "nic", and "other", a disk.

DEVICE=disk
. ./functions.sh

CYCLES=$1
PATIENCE=300

# exchange [WHAT]: another process takes the devices over.
exchange() {
	TAKEOVERS=$((TAKEOVERS + 1))
	./exchange.sh $TAKEOVERS "$1" || fail "no exchange"
}

for_all() {
	for stop in $STOPS; do
		echo "$1" >"$stop/state" || fail "can't $1 $stop"
	done
}

# cycle [WHAT]: a stop of all, an exchange, a resume.
cycle() {
	for_all stop
	exchange "$1"
	for_all resume
}

# shellcheck disable=SC2317 # called by wait_until
more_numbers() {
	[ "$(device_get of_type.peer.numbered)" -gt "$1" ]
}

# Each kind of traffic goes on.
all_go_on() {
	DEVICE=nic
	wait_until more_numbers "$(device_get of_type.peer.numbered)"
	for DEVICE in disk host other; do
		more_complete
	done
	DEVICE=disk
}

# Until it is enough. What is wrong is in a file then.
numbered_frames() {
	while [ ! -e /tmp/enough ]; do
		frames "$NIC" 2000 --patience 120 >/tmp/frames 2>&1 || cat /tmp/frames
	done >/tmp/wrong_frames
	touch /tmp/frames_are_over
}

start_load() {
	rm -f /tmp/enough
	mkdir -p /tmp/mount
	mkfs.ext4 -q "/dev/$DISK" && mount "/dev/$DISK" /tmp/mount || fail "no file system"
	printf '[%s]\nfilename=%s\n' disk /tmp/mount/file host /dev/sda unit1 /dev/sdb other "/dev/$(disk other)" >/tmp/jobs
	fio --size=16M --rw=randwrite --bs=4k --iodepth=8 --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 \
		--verify_backlog=64 --verify_async=0 --time_based --runtime=7200 --eta=never --thread /tmp/jobs >/tmp/fio 2>&1 &
	FIO=$!
	numbered_frames &
}

end_load() {
	touch /tmp/enough
	wait_until test -e /tmp/frames_are_over
	[ ! -s /tmp/wrong_frames ] || fail "$(cat /tmp/wrong_frames)"
	kill -INT $FIO
	wait_until fio_is_over
	fio_found_no_error || fail "fio found an error"
	umount /tmp/mount || fail "can't unmount"
}

# shellcheck disable=SC2317 # called by wait_until
fio_is_over() {
	[ ! -d "/proc/$FIO" ] || grep -q zombie "/proc/$FIO/status"
}

counted() {
	for DEVICE in disk host nic other; do
		expect "takeovers of $DEVICE" "$(device_get counters.takeovers)" "$TAKEOVERS"
		expect "failed requests of $DEVICE" "$(device_get counters.requests.failed)" "$(cat "/tmp/failed_$DEVICE")"
		expect "dropped requests of $DEVICE" "$(device_get counters.requests.dropped)" 0
		expect "requests that $DEVICE has taken while stopped" "$(device_get counters.requests.taken_while_stopped)" 0
		expect "stops of $DEVICE with requests left" "$(device_get counters.stops.acknowledged_with_requests)" 0
	done
	DEVICE=disk
}

test_exchange() {
	number=0
	while [ $number -lt "$CYCLES" ]; do
		cycle
		echo "# stood still for $(device_get counters.stops.last_stopped_us) us"
		all_go_on
		number=$((number + 1))
	done
	counted
}

test_refusal() {
	for_all stop
	echo "exchange the server that fails"
	# The next one can.
	exchange
	for_all resume
	all_go_on
	counted
}

test_moved_data() {
	cycle " with moved data"
	all_go_on
	counted
}

test_exchange_by_virtio_stop() {
	TAKEOVERS=$((TAKEOVERS + 1))
	vdevs=
	for stop in $STOPS; do
		vdev=${stop%/*}
		vdevs="$vdevs ${vdev##*/}"
	done
	status=0
	# shellcheck disable=SC2086 # a word each
	virtio-stop run --timeout 600000 $vdevs -- ./exchange.sh $TAKEOVERS >/tmp/out 2>&1 </dev/null || status=$?
	# What the device has not taken when the stop is asked for stays in the virtqueue, and the successor takes it.
	if [ $status -ne 0 ] && { [ $status -ne 4 ] || ! grep -q 'requests still, which whoever replaces it takes along' /tmp/out; }; then
		fail "virtio-stop ends with $status: $(cat /tmp/out)"
	fi
	all_go_on
	counted
}

find_devices() {
	modprobe -a virtio_blk virtio_scsi sd_mod virtio_net
	find_type 1
	NIC=$(echo "/sys/bus/virtio/devices/$VDEV/net/"*)
	NIC=${NIC##*/}
	/usr/sbin/ip link set "$NIC" up && /usr/sbin/ip addr replace 10.0.1.2/24 dev "$NIC" || fail "no network"
	find_device
	STOPS=$(echo /sys/bus/virtio/devices/*/device_stop)
	for unit in 0 1; do
		wait_until unit_is_there $unit
	done
	for DEVICE in disk host nic other; do
		device_get counters.requests.failed >"/tmp/failed_$DEVICE"
	done
	DEVICE=disk
	for stop in $STOPS; do
		echo 600000 >"$stop/timeout_ms"
		echo 0 >"$stop/lease_ms"
	done
}

# unit_is_there NUMBER
# shellcheck disable=SC2317 # called by wait_until
unit_is_there() {
	[ -e "$(echo /sys/bus/virtio/devices/*/host*/target*/*:0:"$1"/block/*)" ]
}

load_module
find_devices
start_load
all_go_on
for test in exchange refusal moved_data exchange_by_virtio_stop; do
	TAKEOVERS=$(device_get counters.takeovers)
	if ("test_$test") && (no_breach) && (wait_until nobody_hangs) && dmesg_is_clean; then
		echo "ok $test"
	else
		echo "not ok $test"
		(for_all resume)
	fi
done
if (end_load); then echo "ok traffic"; else echo "not ok traffic"; fi
