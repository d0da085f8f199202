# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=busybox
#
# For end_soak.sh: what both sides have counted, after each step and in the end, and whether the guest is as it was. The two may differ by
# how often the module was loaded anew (RELOADS), the disk reset (RESETS), or a stop of that device perhaps given up.

# What both sides count.
COUNTERS="stops.requested stops.acknowledged stops.called_off stops.resumed stops.dropped
	requests.failed requests.dropped requests.taken_while_stopped notifications_lost resets"

# counted_by_module NAME: how many stops it has seen acknowledged since it was loaded.
counted_by_module() {
	use "$1"
	echo $(($(stat stops) + $(stat late_acks)))
}

# What the module has counted is added up.
unload() {
	for name in $LOADED swap; do
		counted_by_module "$name" >"/tmp/counted_now_$name"
	done
	rmmod virtio_device_stop 2>/dev/null || return
	for name in $LOADED swap; do
		echo $(($(cat "/tmp/counted_$name") + $(cat "/tmp/counted_now_$name"))) >"/tmp/counted_$name"
	done
}

# requests_of NAME: how many that read and that write the kernel has completed more than the device, or less: always as many. Not of one
# with a file system: an empty flush is a write to the kernel, and none to the device.
requests_of() {
	DEVICE=$1
	disk=$(echo "/sys/bus/virtio/devices/$(cat "/tmp/vdev_$1")/block/"*)
	# shellcheck disable=SC2046 # a word a field
	set -- $(cat "$disk/stat")
	echo $(($1 - $(kind read))) $(($5 - $(kind write)))
}

begin_accounts() {
	use "$1"
	for counter in $COUNTERS; do
		device_get "counters.$counter" >"/tmp/first_$1_$counter"
	done
	echo 0 >"/tmp/counted_$1"
	echo 0 >"/tmp/given_up_$1"
	[ "$1" != swap ] || requests_of swap >/tmp/first_requests
}

# since NAME COUNTER: by how much it has grown.
since() {
	# shellcheck disable=SC2034 # for device_get
	DEVICE=$1
	echo $(($(device_get "counters.$2") - $(cat "/tmp/first_$1_$2")))
}

# is_between WHAT LEAST NUMBER MOST
is_between() {
	[ "$3" -ge "$2" ] && [ "$3" -le "$4" ] || fail "$1: $3, not from $2 to $4"
}

none_in_flight() {
	[ "$(device_get counters.requests.in_flight)" = 0 ]
}

# begin_step NAME, end_step NAME: what both sides have counted in between, unless the module was loaded anew. A stop that was given up, or
# that a reset has ended, may be acknowledged unseen.
begin_step() {
	step_acknowledged=$(since "$1" stops.acknowledged)
	step_counted=$(counted_by_module "$1")
}

end_step() {
	[ "$EVENT" != reload ] || return 0
	unseen=0
	! may_be_given_up || unseen=1
	is_between "stops of $1 in this step that the module has not counted" 0 \
		$(($(since "$1" stops.acknowledged) - step_acknowledged - $(counted_by_module "$1") + step_counted)) $unseen
}

# accounts NAME: what was asked of the device has come to an end, and each side has counted it.
accounts() {
	use "$1"
	wait_until none_in_flight
	expect "requests of $1 that were completed, dropped or kept" \
		$(($(device_get counters.requests.completed) + $(device_get counters.requests.dropped) + $(device_get counters.requests.kept))) \
		"$(device_get counters.requests.taken)"
	# Of the function, by the driver before, and by the driver after it.
	most_resets=0
	if [ "$1" = disk ]; then
		most_resets=$RESETS
		is_between "resets of $1" "$RESETS" "$(since "$1" resets)" $((3 * RESETS))
	else
		expect "resets of $1" "$(since "$1" resets)" 0
	fi
	[ "$1" != swap ] ||
		expect "the difference between the kernel's and the device's account" "$(requests_of swap)" "$(cat /tmp/first_requests)"
	# A SCSI host refuses to reset a unit.
	expect "failed requests of $1" "$(since "$1" requests.failed)" "$(kind task_management)"
	for counter in requests.dropped requests.taken_while_stopped notifications_lost; do
		expect "$counter of $1" "$(since "$1" $counter)" 0
	done
	given_up=$(cat "/tmp/given_up_$1")
	requested=$(since "$1" stops.requested)
	acknowledged=$(since "$1" stops.acknowledged)
	called_off=$(since "$1" stops.called_off)
	resumed=$(since "$1" stops.resumed)
	dropped=$(since "$1" stops.dropped)
	is_between "stops of $1 that a reset has ended" 0 $((acknowledged - resumed - dropped)) "$most_resets"
	if suspends; then
		is_between "stops of $1 that are not acknowledged" 0 $((requested - acknowledged)) "$most_resets"
	else
		is_between "stops of $1 that are neither acknowledged nor called off" $((-given_up)) $((requested - acknowledged - called_off)) "$most_resets"
	fi
	counted=$(($(cat "/tmp/counted_$1") + $(counted_by_module "$1")))
	is_between "stops of $1 that the module has not counted" 0 $((acknowledged - counted)) $((given_up + RELOADS))
	echo "# $1: $requested stops asked for, $acknowledged acknowledged, $called_off called off, $resumed resumed, $dropped dropped;" \
		"the module has counted $counted"
}

# What is to be the same in the end: who uses which module, and about as much memory of the kernel, in KiB.
look_at_the_guest() {
	for module in virtio_device_stop virtio_blk virtio_scsi virtio_net; do
		echo "$module $(cat "/sys/module/$module/refcnt")"
	done
	echo 3 >/proc/sys/vm/drop_caches
	awk '/^SUnreclaim|^KernelStack/ { kib += $2 } END { print "memory", kib }' /proc/meminfo
}

compare_the_guest() {
	look_at_the_guest >/tmp/guest_at_last
	expect "uses of modules" "$(grep -v memory /tmp/guest_at_last | xargs)" "$(grep -v memory /tmp/guest_at_first | xargs)"
	first=$(sed -n 's/^memory //p' /tmp/guest_at_first)
	last=$(sed -n 's/^memory //p' /tmp/guest_at_last)
	echo "# memory of the kernel: $first KiB at first, $last KiB at last"
	[ $((last - first)) -le "$MEMORY" ] || fail "the kernel's memory has grown from $first to $last KiB"
}
