# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # shared with tools/testing/ends
#
# The module in an initramfs.

end_early_initramfs_tools() {
	early initramfs-tools
}

end_early_dracut() {
	early dracut
}

# early initramfs-tools|dracut: the module is loaded before the driver of the disk of the root file system, by an initramfs that
# Debian's own tool has made with what samples/early-load has for it.
early() {
	local root_files=$devices/root-files release
	release=$(cat "$image/release")
	mkdir -p "$root_files"/{bin,sbin,etc,proc,sys,dev,run,tmp}
	cp "$("$top/tools/vm/root")/usr/bin/busybox" "$root_files/bin/"
	ln -sf busybox "$root_files/bin/sh"
	cat >"$root_files/sbin/init" <<'END'
#!/bin/busybox sh
[ -e /proc/1 ] || busybox mount -t proc proc /proc
[ -e /sys/block ] || busybox mount -t sysfs sys /sys
exec >/dev/console 2>&1
cd /sys/block/vda/device/device_stop
read -r state <state
read -r protocol <protocol
echo "the disk is $state, $protocol"
echo stop >state && read -r state <state && echo resume >state && echo "the disk was $state"
busybox reboot -f
END
	chmod +x "$root_files/sbin/init"
	truncate -s 64M "$devices/root"
	"$top/tools/vm/enter" -- mkfs.ext4 -q -F -d "$root_files" "$devices/root"

	mkdir -p "$devices/modules/updates" "$devices/modprobe.d"
	cp -rL "$image/image/usr/lib/modules/$release"/{kernel,modules.*} "$devices/modules/"
	cp "$module" "$devices/modules/updates/"
	cp "$top/samples/early-load/modprobe.conf" "$devices/modprobe.d/virtio_device_stop.conf"
	"$top/tools/vm/enter" --tmpfs /usr/lib/modules --bind "$devices/modules" "/usr/lib/modules/$release" \
		--bind "$devices/modprobe.d" /etc/modprobe.d -- \
		bash -euc "$initramfs_of" "$1" "$release" "$top/samples/early-load" "$devices/initramfs" >"$devices/made" 2>&1 ||
		sed 's/^/# # /' "$devices/made"
	start_devices "blk,name=root,protocol=$protocol"
	status=0
	"$top/tools/vm/boot" --kernel "$kernel" "${boot_options[@]}" --log "$devices/console" --append root=/dev/vda --append rw \
		--qemu-arg -initrd --qemu-arg "$devices/initramfs" -- true >"$devices/output" 2>"$devices/errors" || status=$?
	check "the guest ends by itself, the kernel has not complained" status_is 123
	check "the root file system's disk has negotiated" console_says "the disk is running, ${protocol//-/_}"
	check "it can be stopped" console_says 'the disk was stopped'
	check "the device has seen that" value_is root counters.stops.resumed 1
	check "no driver has broken a rule" no_breach
}

# shellcheck disable=SC2016 # the build root's
initramfs_of='
release=$1 samples=$2 initramfs=$3
depmod "$release"
case $0 in
initramfs-tools)
	conf=$initramfs.d
	cp -r /etc/initramfs-tools "$conf"
	mkdir -p "$conf/hooks"
	cp "$samples/initramfs-tools-hook" "$conf/hooks/virtio_device_stop"
	chmod +x "$conf/hooks/virtio_device_stop"
	sed -i "s/^MODULES=.*/MODULES=list/" "$conf/initramfs.conf"
	printf "%s\n" virtio_pci virtio_blk ext4 >>"$conf/modules"
	mkinitramfs -d "$conf" -o "$initramfs" "$release"
	;;
dracut)
	mkdir -p "$initramfs.d"
	cp "$samples/dracut.conf" "$initramfs.d/virtio_device_stop.conf"
	dracut --no-hostonly --conf /dev/null --confdir "$initramfs.d" --filesystems ext4 --drivers "virtio_pci virtio_blk ext4" \
		--modules "base kernel-modules rootfs-block udev-rules fs-lib" --force "$initramfs" "$release"
	;;
esac'
