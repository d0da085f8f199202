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
	make_package_disk "$top/build/packages"
	start_debian "$disk" "blk,name=root,protocol=$protocol" "blk,name=packages,protocol=$protocol" "net,name=nic,protocol=$protocol"
	check "Debian boots from the disk" debian_is_up
	check "nothing is there before" in_debian '! command -v virtio-stop && ! modinfo virtio_device_stop && [ ! -e /dev/virtio_device_stop ]'
	check "apt installs the module" install virtio-device-stop-modules-
	check "apt installs the tool" install virtio-stop_
	check "nothing of what runs has changed" in_debian '[ ! -e /sys/module/virtio_device_stop ]'
	check "the guest boots again" reboot_debian
	check "the disk of the root file system has negotiated" state_in_debian vda running
	check "so has the network device" in_debian 'udevadm settle; virtio-stop check "$(basename /sys/class/net/e*)"'
	check "the disk can be stopped, by who is on it" in_debian 'sleep 10 | virtio-stop run --freeze --max-time 60000 --until-eof /'
	check "its device has seen that" value_is root counters.stops.resumed 1
	check "the pages of the manual and the completions are there" in_debian 'dpkg -L virtio-stop | grep -q man/man1/virtio-stop-run.1 &&
		dpkg -L virtio-stop | grep -q completions/virtio-stop'
	check "no driver has broken a rule" no_breach
	check "the kernel has not complained" debian_is_sound
	check "the guest ends" end_debian
}

# Upgraded while a device is stopped, removed, purged.
end_packages_removal() {
	local newer=$devices/newer packages=("$top"/build/packages/virtio-{stop_,device-stop-modules-}*.deb)
	check "a guest has the packages" "$top/tools/vm/debian" --with "${packages[@]}" --disk "$devices/installed"
	[ -s "$devices/installed" ] || return
	make_newer_packages "$newer" "${packages[@]}"
	make_package_disk "$newer"
	start_debian "$devices/installed" "blk,name=root,protocol=$protocol" "blk,name=packages,protocol=$protocol" "net,name=nic,protocol=$protocol"
	check "Debian boots from the disk" debian_is_up
	check "the module is there, before any driver" state_in_debian vda running
	check "a device is stopped" in_debian 'udevadm settle; virtio-stop stop --lease 3600000 "$(basename /sys/class/net/e*)" >/run/stop'
	check "apt upgrades the module meanwhile" install virtio-device-stop-modules-
	check "apt upgrades the tool meanwhile" install virtio-stop_
	check "of a newer version" in_debian 'virtio-stop --version && [ "$(dpkg-query -W -f "\${Version}" virtio-stop)" = 99 ]'
	check "the device has stood still all the time" in_debian 'virtio-stop resume "$(basename /sys/class/net/e*)"'
	check "its device has seen one stop" value_is nic counters.stops.acknowledged 1
	check "apt removes the tool" remove virtio-stop
	check "apt removes the module" remove 'virtio-device-stop-modules-$(uname -r)'
	check "what is loaded stays" state_in_debian vda running
	check "nothing of theirs is left" in_debian 'left=$(find /usr /etc /var/lib/dpkg/info -name "*virtio?stop*" -o -name "*virtio?device?stop*") &&
		echo "$left" && [ -z "$left" ]'
	check "the guest boots again" reboot_debian
	check "without the module" in_debian '[ ! -e /sys/module/virtio_device_stop ] && [ ! -e /sys/block/vda/device/device_stop ]'
	check "no driver has broken a rule" no_breach
	check "the kernel has not complained" debian_is_sound
	check "the guest ends" end_debian
}

# remove NAME
remove() {
	apt "apt-get remove --yes $1; apt-get purge --yes $1"
}

# make_newer_packages FOLDER PACKAGE...: the same, as of version 99.
make_newer_packages() {
	local folder=$1 package
	shift
	mkdir -p "$folder"
	for package; do
		"$top/tools/vm/enter" -- sh -euc '
			dpkg-deb -R "$1" "$2/tree"
			sed -i "s/^Version:.*/Version: 99/" "$2/tree/DEBIAN/control"
			dpkg-deb --root-owner-group -b "$2/tree" "$2/$(basename "$1" | sed "s/_.*_/_99_/")"
			rm -r "$2/tree"' _ "$package" "$folder" >"$devices/made" 2>&1 || cat "$devices/made"
	done
}

# make_package_disk FOLDER
make_package_disk() {
	"$top/tools/vm/enter" -- mke2fs -q -t ext4 -d "$1" "$devices/packages" 64M
}

# install BEGINNING: the package whose name begins so.
install() {
	apt 'mountpoint -q /mnt || mount -o ro /dev/vdb /mnt; apt-get install --yes --no-install-recommends /mnt/'"$1"'*.deb'
}

# apt SCRIPT: runs it in the guest. Under emulation an initramfs takes a minute.
apt() {
	ask_agent --timeout 500 run -- /bin/sh -euc "export DEBIAN_FRONTEND=noninteractive; $1" >"$devices/answer" 2>&1 ||
		{ sed 's/^/# # /' "$devices/answer" && false; }
}

# state_in_debian DEVICE STATE
state_in_debian() {
	[ "$(in_debian 'cat "/sys/block/$1/device/device_stop/state"' "$1")" = "$2" ]
}
