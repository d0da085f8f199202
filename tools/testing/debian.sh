# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2016,SC2154 # the guest's variables, and those of the script that has sourced this
#
# A Debian guest (tools/vm/debian) with devices of this project, asked by qemu-guest-agent. For scripts that have sourced devices.sh.
# Its console is in $devices/console, QEMU's errors in $devices/errors.

machine=
debian_options=()

# start_debian DISK SPEC...: a guest with these devices (see start_devices), of which the first is a disk that has a copy of DISK.
start_debian() {
	local first=${2##*name=}
	first=${first%%,*}
	cp --sparse=always "$1" "$devices/$first"
	shift
	start_devices "$@"
	debian_devices=("$@")
	boot_debian
}

# boot_debian: begins to boot it, with $debian_options for QEMU. It boots again when it wants to.
boot_debian() {
	local spec name index=0 options=()
	! "$top/tools/vm/kvm" || options+=(-accel kvm)
	for spec in "${debian_devices[@]}"; do
		name=${spec##*name=}
		name=${name%%,*}
		options+=(
			-device "pcie-root-port,id=port$index,chassis=$((index + 1)),slot=$((index + 1))"
			-device "{\"driver\":\"vfio-user-pci\",\"id\":\"$name\",\"bus\":\"port$index\",\"socket\":{\"type\":\"unix\",\"path\":\"$devices/$name.vfio\"}$(
				[ "$index" -gt 0 ] || echo ',"bootindex":0'
			)}"
		)
		index=$((index + 1))
	done
	rm -f "$devices/agent"
	# Debian's own words for the kernel, and what QEMU's emulation wants, are in the guest's GRUB (tools/vm/debian.d/settle).
	"$top/tools/vm/enter" -- qemu-system-x86_64 -nodefaults -no-user-config -display none -net none \
		-machine q35,memory-backend=mem -cpu max,la57=off -smp 2 -m 768 \
		-object memory-backend-memfd,id=mem,size=768M,share=on \
		-chardev "file,id=console,path=$devices/console,append=on" -serial chardev:console -device virtio-serial-pci \
		-chardev "socket,id=agent,path=$devices/agent,server=on,wait=off" \
		-device virtserialport,chardev=agent,name=org.qemu.guest_agent.0 \
		"${options[@]}" "${debian_options[@]}" -accel tcg,thread=multi </dev/null 2>>"$devices/errors" &
	machine=$!
	servers+=("$machine")
	wait_until 20 test -S "$devices/agent"
}

# wait_until SECONDS COMMAND...: whether COMMAND succeeds by then.
wait_until() {
	local until=$((SECONDS + $1))
	shift
	while ! "$@"; do
		[ "$SECONDS" -lt "$until" ] || return 1
		sleep 0.1
	done
}

# ask_agent [--timeout SECONDS] ping|freeze|...: see guest-agent --help.
ask_agent() {
	"$top/build/bin/guest-agent" "$devices/agent" "$@"
}

# in_debian SCRIPT [ARG...]: runs a shell script there, for two minutes at most, and ends with its status.
in_debian() {
	ask_agent --timeout 120 run -- /bin/sh -euc "$1" sh "${@:2}"
}

# put_into_debian FILE PATH
put_into_debian() {
	ask_agent run --input -- /bin/sh -euc 'cat >"$1"' sh "$2" <"$1"
}

debian_is_up() {
	ask_agent --timeout "${1:-500}" ping
}

# begin_in_debian PROGRAM [ARG]...: one that ends the agent, which may not have answered by then.
begin_in_debian() {
	ask_agent --timeout 10 start -- "$@" >"$devices/answer" 2>&1 || :
}

# reboot_debian: and waits until it is up again.
reboot_debian() {
	local before
	before=$(in_debian 'cat /proc/sys/kernel/random/boot_id') || return
	begin_in_debian /sbin/reboot
	wait_until 400 has_booted_since "$before"
}

has_booted_since() {
	local now
	now=$(ask_agent --timeout 5 run -- /bin/cat /proc/sys/kernel/random/boot_id 2>"$devices/answer") && [ "$now" != "$1" ]
}

# end_debian: as one does who switches a machine off.
end_debian() {
	begin_in_debian /sbin/poweroff
	wait_until 120 has_ended "$machine"
}

has_ended() {
	! kill -0 "$1" 2>/dev/null
}

# debian_is_sound [CONSOLE]: the kernel has not complained.
debian_is_sound() {
	! grep -E 'BUG:|WARNING:|Oops|Kernel panic|INFO: task|lockup|Call Trace|general protection' "${1:-$devices/console}"
}
