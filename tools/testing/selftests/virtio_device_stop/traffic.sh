# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=busybox
#
# For scripts that have the process of the devices exchanged under load. The devices are "disk", with a mounted file system, "host",
# SCSI disks, "nic", and other disks. BLOCK_DEVICES names all but "nic".

# shellcheck source=tools/testing/selftests/virtio_device_stop/functions.sh
. ./functions.sh
# shellcheck source=tools/testing/selftests/virtio_device_stop/taken_over.sh
. ./taken_over.sh

# shellcheck disable=SC2034 # for device.sh
PATIENCE=240
PEER=10.0.1.1
# The first number in the TCP session. All have as many digits.
FIRST=1000000
# So many at a time.
FRAMES=2000

# find_devices UNIT...: and these logical units of the SCSI host.
find_devices() {
	modprobe -a virtio_blk virtio_scsi sd_mod virtio_net
	find_type 1
	NIC=$(echo "/sys/bus/virtio/devices/$VDEV/net/"*)
	NIC=${NIC##*/}
	/usr/sbin/ip link set "$NIC" up && /usr/sbin/ip addr replace 10.0.1.2/24 dev "$NIC" || fail "no network"
	find_device
	STOPS=$(echo /sys/bus/virtio/devices/*/device_stop)
	for unit; do
		wait_until unit_is_there "$unit"
	done
	for DEVICE in $BLOCK_DEVICES nic; do
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

for_all() {
	for stop in $STOPS; do
		echo "$1" >"$stop/state" || fail "can't $1 $stop"
	done
}

# For how long, from the first device's stop to the last one's resume at most.
stood_still() {
	longest=0
	for DEVICE in $BLOCK_DEVICES nic; do
		time=$(device_get counters.stops.last_stopped_us)
		[ "$time" -le "$longest" ] || longest=$time
	done
	DEVICE=disk
	echo "# stood still for $longest us"
}

# shellcheck disable=SC2317 # called by wait_until
more_numbers() {
	[ "$(device_get of_type.peer.numbered)" -gt "$1" ]
}

# Each kind of traffic goes on.
all_go_on() {
	DEVICE=nic
	wait_until more_numbers "$(device_get of_type.peer.numbered)"
	wait_until lines_are_back 0
	wait_until lines_are_back $((back + 1))
	for DEVICE in $BLOCK_DEVICES; do
		more_complete
	done
	DEVICE=disk
}

# Until it is enough. What is wrong is in a file then.
numbered_frames() {
	while [ ! -e /tmp/enough ]; do
		frames "$NIC" $FRAMES --patience 120 >/tmp/frames 2>&1 || cat /tmp/frames
		cat /tmp/frames >>/tmp/all_frames
	done >/tmp/wrong_frames
	touch /tmp/frames_are_over
}

# One TCP session with the echo, from before the first exchange until after the last: numbered lines. Not more of them are on their way
# than both ends can keep: nc does not read while it waits to write.
session() {
	rm -f /tmp/lines
	mkfifo /tmp/lines
	nc $PEER 7 </tmp/lines | check_lines &
	exec 8>/tmp/lines
	line=$FIRST
	while [ ! -e /tmp/enough ]; do
		seq $line $((line + 499)) >&8
		line=$((line + 500))
		wait_until lines_are_back $((line - 2000))
	done
	exec 8>&-
	wait
	expect "lines that have come back" "$(cat /tmp/lines_back)" $line
	touch /tmp/session_is_over
}

# Each line is to be the next number. Tells which one is, from time to time.
check_lines() {
	awk -v expected=$FIRST '
		function tell() { print expected >"/tmp/lines_back"; close("/tmp/lines_back") }
		$0 != expected { print "the echo sends \"" $0 "\" instead of " expected; exit }
		++expected % 500 == 0 { tell() }
		END { tell() }'
}

# lines_are_back UNTIL: sets back to the next one.
# shellcheck disable=SC2317 # called by wait_until
lines_are_back() {
	[ -s /tmp/lines_back ] && read -r back </tmp/lines_back && [ "$back" -ge "$1" ]
}

# shellcheck disable=SC2317 # called by wait_until
session_has_ended() {
	[ -e /tmp/session_is_over ] || [ -s /tmp/wrong_lines ]
}

# start_load NAME FILE...: fio on a file of the disk, and on these, and traffic.
start_load() {
	start_disks "$@"
	rm -f /tmp/enough /tmp/all_frames
	echo $FIRST >/tmp/lines_back
	numbered_frames &
	session >/tmp/wrong_lines 2>&1 &
}

# start_disks NAME FILE...: fio on a file of the disk, and on these.
start_disks() {
	mkdir -p /tmp/mount
	mkfs.ext4 -q "/dev/$DISK" && mount "/dev/$DISK" /tmp/mount || fail "no file system"
	printf '[%s]\nfilename=%s\n' disk /tmp/mount/file "$@" >/tmp/jobs
	fio --size=16M --rw=randwrite --bs=4k --iodepth=8 --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 \
		--verify_backlog=64 --verify_async=0 --time_based --runtime=7200 --eta=never --thread /tmp/jobs >/tmp/fio 2>&1 &
	FIO=$!
}

end_load() {
	touch /tmp/enough
	wait_until test -e /tmp/frames_are_over
	[ ! -s /tmp/wrong_frames ] || fail "$(cat /tmp/wrong_frames)"
	wait_until session_has_ended
	[ ! -s /tmp/wrong_lines ] || fail "$(cat /tmp/wrong_lines)"
	wait_until lines_are_back 0
	DEVICE=nic
	expect "TCP connections" "$(device_get of_type.peer.tcp_connections)" 1
	expect "bytes echoed" "$(device_get of_type.peer.tcp_echoed)" $(((back - FIRST) * (${#back} + 1)))
	echo "# $((back - FIRST)) lines have come back by one TCP session"
	DEVICE=disk
	end_disks
}

end_disks() {
	kill -INT "$FIO"
	wait_until fio_is_over
	fio_found_no_error || fail "fio found an error"
	umount /tmp/mount || fail "can't unmount"
}

# shellcheck disable=SC2317 # called by wait_until
fio_is_over() {
	[ ! -d "/proc/$FIO" ] || grep -qs zombie "/proc/$FIO/status"
}

counted() {
	for DEVICE in $BLOCK_DEVICES nic; do
		expect "takeovers of $DEVICE" "$(device_get counters.takeovers)" "$TAKEOVERS"
		expect "failed requests of $DEVICE" "$(device_get counters.requests.failed)" "$(cat "/tmp/failed_$DEVICE")"
		expect "dropped requests of $DEVICE" "$(device_get counters.requests.dropped)" 0
		expect "requests that $DEVICE has taken while stopped" "$(device_get counters.requests.taken_while_stopped)" 0
		expect "stops of $DEVICE with requests left" "$(device_get counters.stops.acknowledged_with_requests)" 0
	done
	DEVICE=disk
}
