# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=busybox
#
# Shared by the tests in this folder, which are of the reference device: that the kernel's own drivers work with all of its types.
# The guest has the devices that tools/testing/device has started; one more, "plugged", can be hot-plugged: its socket on the host
# is in the file plugged_socket.

# shellcheck source=tools/testing/selftests/virtio_device_stop/device.sh
. ../virtio_device_stop/device.sh

DEVICE=disk

set_up() {
	modprobe -a virtio_blk virtio_net virtio_rng || ktap_exit_fail_msg "a driver does not load"
	wait_until disk_is_there disk
}

clean_up() {
	killall -q -9 fio
	device_do behave
	# shellcheck disable=SC2034 # for device.sh
	DISK=$(disk "$DEVICE")
}
