# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2034,SC2154 # shared with tools/testing/ends
#
# Ends of the whole guest, or of all servers, with a device in each state.

states=(running stopping stopped resuming aborting failed needs_reset)

# one_in_each_state: devices called as the states.
one_in_each_state() {
	local state specs=()
	for state in "${states[@]}"; do
		specs+=("blk,name=$state,protocol=$protocol")
	done
	start_devices "${specs[@]}"
}

# The guest had a device in each state, and has ended by itself: those that could be resumed were.
ended_in_every_state() {
	check "the guest ends by itself" status_is 123
	check "the stopped device was resumed" value_is stopped counters.stops.resumed 1
	check "the stopped device had stopped" value_is stopped counters.stops.acknowledged 1
	check "no driver has broken a rule" no_breach_where_devices_resume
}

# One that does not in time is asked by clearing SUSPEND, too, which the specification forbids.
no_breach_where_devices_resume() {
	no_breach_but '"rule":"STATUS-1","seen":"0x0f written over 0x1b clears 0x10"' "${states[@]}"
}

end_reboot() {
	one_in_each_state
	run_in_guest end_reboot.sh
	check "the system reboots" console_says 'reboot: Restarting system'
	ended_in_every_state
}

# The other kernel writes its mark to every disk.
end_kexec() {
	local state
	one_in_each_state
	mkdir -p "$devices/second"/{bin,dev}
	cp "$("$top/tools/vm/root")/usr/bin/busybox" "$devices/second/bin/"
	find "$image/image/usr/lib/modules" -name 'virtio_blk.ko*' -exec cp {} "$devices/second/" \;
	cat >"$devices/second/init" <<'END'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox modprobe /virtio_blk.ko* 2>/dev/null || /bin/busybox insmod /virtio_blk.ko*
for disk in /dev/vd?; do
	echo "the second kernel" | /bin/busybox dd of="$disk" bs=512 seek=7 conv=sync,notrunc,fsync
done
/bin/busybox reboot -f
END
	chmod +x "$devices/second/init"
	(cd "$devices/second" && "$top/tools/vm/enter" -- sh -c 'find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0') >"$devices/second.cpio"
	run_in_guest end_kexec.sh -- --copy "$image/image/usr/lib/modules/$(cat "$image/release")/vmlinuz:/" \
		--copy "$devices/second.cpio:/" --copy "$("$top/tools/vm/bundle" kexec):/"
	check "another kernel starts" console_says 'kexec_core: Starting new kernel'
	ended_in_every_state
	for state in "${states[@]}"; do
		check "the other kernel uses the device that was $state" cmp -s -n 17 -i 0:3584 - "$devices/$state" <<<"the second kernel"
	done
}

# QEMU 11.1 aborts itself now and then when the servers of several of its devices go away (error_setv: Assertion), and then the guest
# has told nothing: another one is tried.
end_removal() {
	local state try
	for try in 1 2 3 4 5; do
		one_in_each_state
		run_in_guest end_removal.sh
		grep -q 'error_setv: Assertion' "$devices/errors" || break
		echo "# QEMU has aborted itself, try $try of 5"
		boot_options=()
		rm -f "$devices"/*.vfio "$devices/control"
	done
	for state in "${states[@]}"; do
		check "a device that was $state is gone" guest_says "ok $state\$"
	done
	check "nobody hangs" guest_says 'ok nobody_hangs$'
	check "the kernel has not complained" status_is 0
}
