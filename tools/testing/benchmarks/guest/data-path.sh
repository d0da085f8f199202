# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=busybox
#
# usage: data-path.sh ROUNDS
#
# "without ROUND" and "with ROUND" the module: reads from a disk a second, frames to and from a network device a second. Each is first in
# every other round.

modprobe -a virtio_blk virtio_net
for vdev in /sys/bus/virtio/devices/*; do
	[ $(($(cat "$vdev/device"))) -eq 2 ] && disk=${vdev##*/} || nic=${vdev##*/}
done

bind_again() {
	for action in unbind bind; do
		echo "$disk" >/sys/bus/virtio/drivers/virtio_blk/$action
		echo "$nic" >/sys/bus/virtio/drivers/virtio_net/$action
	done
	ip link set eth0 up
	until [ "$(cat /sys/class/net/eth0/operstate)" = up ]; do :; done
}

# Requests a second, and frames in a hundredth of a second.
measure() {
	requests=$(fio --name=read --filename=/dev/vda --rw=randread --bs=4k --iodepth=16 --ioengine=libaio --direct=1 --time_based \
		--runtime=1 --minimal | cut -d ';' -f 8)
	read -r begin rest </proc/uptime
	frames eth0 8000 >/dev/null || exit 1
	read -r end rest </proc/uptime
	begin=${begin%.*}${begin#*.}
	end=${end%.*}${end#*.}
	echo "$1 $round $requests $((800000 / (end - begin)))"
}

without() {
	bind_again
	measure without
}

with() {
	insmod /vds/modules/virtio_device_stop.ko
	bind_again
	measure with
	rmmod virtio_device_stop
}

round=0
while [ $round -lt "$1" ]; do
	if [ $((round % 2)) -eq 0 ]; then
		without
		with
	else
		with
		without
	fi
	round=$((round + 1))
done
