# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash
#
# The devices that a guest gets: started here, ended when the script ends. For scripts that set $top and run under set -eu.

devices=$(mktemp -d "${TMPDIR:-/tmp}/vds-devices.XXXXXX")
servers=()
boot_options=()

end_devices() {
	[ ${#servers[@]} -eq 0 ] || kill "${servers[@]}" 2>/dev/null || true
	# shellcheck disable=SC2046 # a word each
	[ ! -e "$devices/successors" ] || kill $(cat "$devices/successors") 2>/dev/null || true
	rm -rf "$devices"
}
trap end_devices EXIT

# start_devices TYPE,KEY=VALUE,...,name=NAME...: starts the devices, in one process, for tools/vm/boot "${boot_options[@]}". A blk
# or scsi gets the file $devices/NAME, of 64 MiB unless it is there. The control socket is $devices/control.
# The program is $first_server, or that of this tree.
start_devices() {
	local spec name socket sockets=() options=(--control "$devices/control") waited=0
	for spec; do
		name=${spec##*name=}
		name=${name%%,*}
		socket=$devices/$name.vfio
		sockets+=("$socket")
		if [[ $spec == blk,* || $spec == scsi,* ]]; then
			[ -e "$devices/$name" ] || truncate -s 64M "$devices/$name"
			spec+=,file=$devices/$name
		fi
		options+=(--device "$spec,socket=$socket")
		boot_options+=(--vfio-user "$socket")
	done
	# shellcheck disable=SC2154 # of the script that has this
	"${first_server:-$top/build/bin/vfio-user-virtio}" serve "${options[@]}" 2>"$devices/log" &
	servers+=($!)
	while [ ! -S "${sockets[-1]}" ]; do
		if ! kill -0 "${servers[-1]}" 2>/dev/null || [ "$waited" -ge 1000 ]; then
			echo "the devices do not start:" >&2
			cat "$devices/log" >&2
			return 1
		fi
		waited=$((waited + 1))
		sleep 0.01
	done
}

# take_over ARG...: another process goes on with the devices, as soon as it can. It may be started by a part of the script that ends
# before the others.
take_over() {
	"$top/build/bin/vfio-user-virtio" serve --take-over "$devices/control" "$@" 2>>"$devices/log" &
	echo $! >>"$devices/successors"
}

# many_devices PROTOCOL: 32 devices for start_devices, a line each: disks, network devices and, by VIRTIO_F_DEVICE_STOP, sources of
# entropy.
many_devices() {
	local number
	for ((number = 0; number < 32; number++)); do
		case $1-$((number % 8)) in
		device-stop-[3-5] | suspend-[3-6]) echo "net,name=nic$number,protocol=$1,mac=02:00:00:00:01:$(printf %02x "$number")" ;;
		device-stop-[67]) echo "rng,name=entropy$number,protocol=$1" ;;
		*) echo "blk,name=disk$number,protocol=$1" ;;
		esac
	done
}
