# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=busybox
#
# What bench-guest sample says, with I/O on a disk and frames on a network device.

insmod /vds/modules/virtio_device_stop.ko
modprobe -a virtio_blk virtio_net
for vdev in /sys/bus/virtio/devices/*; do
	[ $(($(cat "$vdev/device"))) -eq 2 ] && disk=$vdev || nic=$vdev
done
ip link set eth0 up
until [ "$(cat /sys/class/net/eth0/operstate)" = up ]; do :; done
fio --name=read --filename=/dev/vda --rw=randrw --bs=4k --iodepth=16 --ioengine=libaio --direct=1 --time_based --runtime=600 \
	--eta=never >/dev/null &
fio=$!
frames eth0 100000000 >/dev/null &
frames=$!
# Until both are under way.
until [ "$(cat /sys/class/net/eth0/statistics/rx_packets)" -gt 2000 ] && [ "$(awk '{ print $1 + $5 }' /sys/block/vda/stat)" -gt 1000 ]; do
	usleep 50000
done
bench-guest sample 10 2000 700 1300 "$disk" "$nic"
kill $fio $frames
wait
