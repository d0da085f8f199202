# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash
#
# The devices that a guest gets: started here, ended when the script ends. For scripts that set $top and run under set -eu.

devices=$(mktemp -d "${TMPDIR:-/tmp}/vds-devices.XXXXXX")
servers=()
boot_options=()

end_devices() {
	[ ${#servers[@]} -eq 0 ] || kill "${servers[@]}" 2>/dev/null || true
	rm -rf "$devices"
}
trap end_devices EXIT

# start_device NAME [OPTION]...: a disk of 64 MiB whose serial number is NAME, for tools/vm/boot "${boot_options[@]}". Its control
# socket is $devices/NAME.control.
start_device() {
	local name=$1 waited=0
	shift
	truncate -s 64M "$devices/$name"
	# shellcheck disable=SC2154 # of the script that has this
	"$top/build/bin/vfio-user-virtio" --socket "$devices/$name.vfio" --control "$devices/$name.control" \
		--file "$devices/$name" "$@" 2>"$devices/$name.log" &
	servers+=($!)
	while [ ! -S "$devices/$name.vfio" ]; do
		if ! kill -0 "${servers[-1]}" 2>/dev/null || [ "$waited" -ge 1000 ]; then
			echo "the device '$name' does not start:" >&2
			cat "$devices/$name.log" >&2
			return 1
		fi
		waited=$((waited + 1))
		sleep 0.01
	done
	boot_options+=(--vfio-user "$devices/$name.vfio")
}
