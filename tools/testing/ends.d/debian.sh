# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2016,SC2154 # the guest's variables, and those of tools/testing/ends
#
# The packages on a real distribution.

# shellcheck source=tools/testing/debian.sh
. "$top/tools/testing/debian.sh"

# Installed as users do it, with apt and from a folder: the module is there from the initramfs on.
end_packages() {
	local disk
	disk=$("$top/tools/vm/debian")/disk
	make_package_disk
	start_debian "$disk" "blk,name=root,protocol=$protocol" "blk,name=packages,protocol=$protocol" "net,name=nic,protocol=$protocol"
	check "Debian boots from the disk" debian_is_up
	check "nothing is there before" in_debian '! command -v virtio-stop && ! modinfo virtio_device_stop && [ ! -e /dev/virtio_device_stop ]'
	check "apt installs the packages" install
	check "nothing of what runs has changed" in_debian '[ ! -e /sys/module/virtio_device_stop ]'
	check "the guest boots again" reboot_debian
	check "the disk of the root file system has negotiated" state_in_debian vda running
	check "so has the network device" in_debian 'virtio-stop check "$(basename /sys/class/net/e*)"'
	check "the disk can be stopped, by who is on it" in_debian 'virtio-stop run --freeze vda -- /bin/true'
	check "its device has seen that" value_is root counters.stops.resumed 1
	check "no driver has broken a rule" no_breach
	check "the kernel has not complained" debian_is_sound
	check "the guest ends" end_debian
}

make_package_disk() {
	"$top/tools/vm/enter" -- mke2fs -q -t ext4 -d "$top/build/packages" "$devices/packages" 64M
}

install() {
	ask_agent --timeout 400 run -- /bin/sh -euc 'mount -o ro /dev/vdb /mnt
		export DEBIAN_FRONTEND=noninteractive
		apt-get install --yes --no-install-recommends /mnt/virtio-stop_*.deb "/mnt/virtio-device-stop-modules-$(uname -r)"_*.deb' \
		>"$devices/answer" 2>&1 || { sed 's/^/# # /' "$devices/answer" && false; }
}

# state_in_debian DEVICE STATE
state_in_debian() {
	[ "$(in_debian 'cat "/sys/block/$1/device/device_stop/state"' "$1")" = "$2" ]
}
