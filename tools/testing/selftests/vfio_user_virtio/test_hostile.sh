#!/bin/sh
# shellcheck shell=busybox
# SPDX-License-Identifier: GPL-2.0-only
#
# A driver that means harm to one device at a time, while the others work. Afterwards the device works, too.

. ./functions.sh

# How many rounds for each device, when this is not said; and with which seed.
ROUNDS=${1:-100}
SEED=${2:-$(od -A n -N 4 -t u4 /dev/urandom | tr -d ' ')}

set_up() {
	modprobe -a virtio_blk virtio_net virtio_rng virtio_scsi sd_mod || ktap_exit_fail_msg "a driver does not load"
	wait_until disk_is_there disk
}

# pci_of FILE: the PCI function of the virtio device that is there.
pci_of() {
	file=$(readlink -f "$1")
	file=${file%/virtio*}
	echo "${file##*/}"
}

# entropy_source NUMBER: the PCI function of one that virtio_rng drives, in their order.
entropy_source() {
	for source in /sys/bus/virtio/drivers/virtio_rng/virtio*; do
		pci_of "$source"
	done | sort | sed -n "$1p"
}

counter() {
	device_get "counters.requests.$1"
}

# It has ended, or has said something since the last time. Without a new process, which takes long under emulation.
hostile_gets_on() {
	[ ! -e /tmp/hostile-ended ] || return 0
	last=
	while read -r line; do
		last=$line
	done </tmp/hostile
	[ "$last" != "$told" ] && told=$last
}

# harm NAME PCI: the device of that name has no other driver meanwhile.
harm() {
	DEVICE=$1
	drivers=/sys/bus/pci/drivers/virtio-pci
	echo "# $1: seed $SEED"
	taken=$(counter taken)
	echo "$2" >$drivers/unbind || fail "can't unbind $2"
	rm -f /tmp/hostile-ended
	told=
	: >/tmp/hostile
	{
		./hostile "$2" "$ROUNDS" "$SEED" >/tmp/hostile 2>&1
		echo $? >/tmp/hostile-ended
	} &
	# As many rounds as there are take any time, but not a few of them.
	until [ -e /tmp/hostile-ended ]; do
		wait_until hostile_gets_on
	done
	expect "what hostile ended with ($(tail -n 1 /tmp/hostile))" "$(cat /tmp/hostile-ended)" 0
	echo "# $(tail -n 1 /tmp/hostile)"
	expect "status" "$(device_get status)" 0
	expect "taken" "$(counter taken)" $(($(counter completed) + $(counter dropped) + $(counter kept) + $(counter in_flight)))
	taken=$(($(counter taken) - taken))
	echo "# $1: took $taken, completed $(counter completed), reset $(device_get counters.resets)"
	device_do forget-breaches
	echo "$2" >$drivers/bind || fail "can't bind $2 again"
	[ $taken -gt 0 ] || fail "the device has taken nothing"
	DEVICE=disk
}

# harm_under_io NAME PCI: while the disk is written to.
harm_under_io() {
	start_fio
	harm "$@"
	more_complete
	stop_fio
}

test_disk_that_can_not_be_written() {
	harm_under_io readonly "$(pci_of "/sys/block/$(disk readonly)/device")"
	wait_until disk_is_there readonly
	dd if="/dev/$(disk readonly)" of=/dev/null bs=4k count=16 iflag=direct 2>/dev/null || fail "can't read"
}

# network_card: the interface of "nic", which has the address that a device has when it is given none.
network_card() {
	for card in /sys/class/net/*; do
		! holds "$card/address" 52:54:00:00:00:01 || echo "${card##*/}"
	done
}

card_is_there() {
	[ -n "$(network_card)" ]
}

test_network_card() {
	harm_under_io nic "$(pci_of "/sys/class/net/$(network_card)/device")"
	wait_until card_is_there
	ip link set "$(network_card)" up
	frames "$(network_card)" 100 >/tmp/frames || fail "$(cat /tmp/frames)"
}

test_scsi_host() {
	harm_under_io host "$(pci_of /sys/bus/virtio/drivers/virtio_scsi/virtio*)"
	wait_until test -e /sys/block/sdb
	DISK=sda
	DEVICE=host
	io_works
}

# Without a driver of the device that keeps all. The kernel goes over to it otherwise, asks it within a minute, and has nobody else read
# from any source until that is answered.
test_entropy() {
	dull=$(entropy_source 2)
	echo "$dull" >/sys/bus/pci/drivers/virtio-pci/unbind || fail "can't unbind $dull"
	harm_under_io entropy "$(entropy_source 1)"
	DEVICE=entropy
	before=$(kind entropy)
	echo virtio_rng.0 >/sys/class/misc/hw_random/rng_current || fail "the source is not there"
	timeout $PATIENCE dd if=/dev/hwrng of=/tmp/random bs=512 count=4 2>/dev/null || {
		who_waits
		fail "no entropy"
	}
	[ "$(kind entropy)" -gt "$before" ] || fail "no request has come"
	echo "$dull" >/sys/bus/pci/drivers/virtio-pci/bind || fail "can't bind $dull again"
}

a_buffer_is_kept() {
	[ "$(counter kept)" -gt "$1" ]
}

test_device_that_keeps_all() {
	DEVICE=dull
	kept=$(counter kept)
	DEVICE=disk
	harm_under_io dull "$(entropy_source 2)"
	DEVICE=dull
	wait_until a_buffer_is_kept "$kept"
}

test_disk() {
	harm disk "$(pci_of "/sys/block/$DISK/device")"
	wait_until disk_is_there disk
	DISK=$(disk disk)
	io_works
	start_fio
	stop_fio
}

run_tests test_disk_that_can_not_be_written test_network_card test_scsi_host test_entropy test_device_that_keeps_all test_disk
