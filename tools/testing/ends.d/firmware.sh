# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # shared with tools/testing/ends
#
# The reference device, driven by what runs before any kernel does. Each boot is a QEMU of its own; the devices stay the same.

end_seabios() {
	use_seabios blk
}

end_seabios_scsi() {
	use_seabios scsi
}

end_ovmf() {
	use_ovmf blk
}

end_ovmf_scsi() {
	use_ovmf scsi
}

end_ipxe() {
	local firmware
	get_firmware || return
	start_devices net,name=nic,mac=02:00:00:00:00:07
	check "${cycles:-1} boots: the peer answers all pings, and each answer is received" pings_in_each_boot
	check "no driver has broken a rule" no_breach
}

# use_seabios TYPE
use_seabios() {
	cp "$top/build/firmware/boot_sector" "$devices/disk"
	truncate -s 64M "$devices/disk"
	start_devices "$1,name=disk"
	check "${cycles:-1} boots from it: what each has booted copies what is on the disk" copies_in_each_boot
	check "no driver has broken a rule" no_breach
}

# use_ovmf TYPE
use_ovmf() {
	local firmware
	get_firmware || return
	make_efi_disk "$top/build/firmware/efi_program.efi"
	start_devices "$1,name=disk"
	cp "$firmware/usr/share/OVMF/OVMF_VARS_4M.fd" "$devices/variables"
	check "${cycles:-1} boots from it: what each has booted copies what is on the disk" copies_in_each_boot \
		-drive "if=pflash,format=raw,readonly=on,file=$firmware/usr/share/OVMF/OVMF_CODE_4M.fd" \
		-drive "if=pflash,format=raw,file=$devices/variables"
	check "no driver has broken a rule" no_breach
}

# Sets firmware.
get_firmware() {
	check "the firmware is there" find_firmware
	[ -n "$firmware" ]
}

find_firmware() {
	firmware=$("$top/tools/vm/firmware")
}

# make_efi_disk PROGRAM: a file system with what a disk's firmware looks for on it, in the first 4 MiB.
make_efi_disk() {
	truncate -s 64M "$devices/disk"
	# shellcheck disable=SC2016 # the inner shell's
	"$top/tools/vm/enter" --setenv PATH "$firmware/usr/bin:/usr/bin" -- sh -ec '
		mformat -i "$1" -T 8192 ::
		mmd -i "$1" ::/EFI ::/EFI/BOOT
		mcopy -i "$1" "$2" ::/EFI/BOOT/BOOTX64.EFI' _ "$devices/disk" "$1"
}

# copies_in_each_boot QEMU_ARGUMENT...: whether what is booted from the disk, "$cycles" times, copies what is on it.
copies_in_each_boot() {
	local boot
	for ((boot = 1; boot <= ${cycles:-1}; boot++)); do
		dd if=/dev/urandom of="$devices/disk" bs=512 seek=8192 count=1024 conv=notrunc status=none
		run_machine disk "$@"
		if ! status_is 33 || ! is_copied; then
			echo "# # boot $boot of ${cycles:-1}: status $status, $(is_copied && echo copied || echo not copied)"
			tell_of_devices
			return 1
		fi
	done
}

# As tools/testing/firmware has it.
is_copied() {
	local from=$((8192 * 512)) to=$((16384 * 512)) bytes=$((1024 * 512))
	console_says '^disk: copied' && cmp -s --bytes=$bytes "$devices/disk" "$devices/disk" $from $to
}

# Whether iPXE does what tools/testing/firmware/ping.ipxe asks for, "$cycles" times.
pings_in_each_boot() {
	local boot arp echo received
	for ((boot = 1; boot <= ${cycles:-1}; boot++)); do
		arp=$(value nic of_type.peer.arp)
		echo=$(value nic of_type.peer.echo)
		received=$(value nic of_type.received)
		run_machine nic -kernel "$firmware/usr/lib/ipxe/ipxe.lkrn" -initrd "$top/tools/testing/firmware/ping.ipxe"
		if ! status_is 0 || ! have_pinged; then
			echo "# # boot $boot of ${cycles:-1}: status $status; had received $received (ARP $arp, pings $echo)"
			tell_of_devices
			return 1
		fi
	done
}

# The device, its peer and iPXE have counted the same frames since they were "$received" (with "$arp" and "$echo").
have_pinged() {
	arp=$(($(value nic of_type.peer.arp) - arp))
	echo=$(($(value nic of_type.peer.echo) - echo))
	received=$(($(value nic of_type.received) - received))
	[ "$echo" -eq 282 ] && [ "$received" -eq $((arp + echo)) ] &&
		screen_has 'nic: 02:00:00:00:00:07 by virtio-net' && screen_has 'nic: pinged' && screen_has "RX:$received RXE:0]"
}

# screen_has TEXT: whether a line ends with that.
screen_has() {
	tr -dc '[:print:]\n' <"$devices/screen" | grep -q "$1\$"
}

# run_machine DEVICE QEMU_ARGUMENT...: a machine with that device, for a minute at most. Sets status: 124 if it has not ended by itself,
# 2 N + 1 if it has written N to its exit port. What comes from its debug port is in $devices/console, what it shows in $devices/screen.
# It is emulated always, with barriers that the device sees (see tools/vm/boot).
run_machine() {
	local device=$1
	shift
	status=0
	timeout --foreground --kill-after=5 60 "$top/tools/vm/enter" -- qemu-system-x86_64 -nodefaults -no-user-config -display none \
		-no-reboot -net none -machine q35,memory-backend=mem,graphics=off -cpu max -accel tcg,thread=multi -smp 1,maxcpus=2 -m 256 \
		-object memory-backend-memfd,id=mem,size=256M,share=on -chardev "file,id=console,path=$devices/console" \
		-device isa-debugcon,iobase=0x402,chardev=console -device isa-debug-exit,iobase=0xf4 -serial "file:$devices/screen" \
		-device pcie-root-port,id=port0,chassis=1,slot=1 \
		-device "{\"driver\":\"vfio-user-pci\",\"bus\":\"port0\",\"socket\":{\"type\":\"unix\",\"path\":\"$devices/$device.vfio\"}}" \
		"$@" </dev/null >"$devices/errors" 2>&1 || status=$?
}

# What the devices have counted and logged, and what the machine has shown.
tell_of_devices() {
	{
		"$top/build/bin/vfio-user-virtio" report "$devices/control" 2>&1
		cat "$devices/log"
		echo "the end of the screen:"
		tail -n 20 "$devices/screen" | tr -dc '[:print:]\n'
	} | sed 's/^/# # /'
}
