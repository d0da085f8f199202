# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # shared with tools/testing/ends
#
# Everything at random, for as long as it is told, and plain stops and resumes, as many as it is told: `make soak`.

# For $cycles minutes, with the choices that $SEED makes.
end_soak() {
	local seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
	soak "$cycles" "$seed"
	check "whatever happens at random, the load goes on, and both sides count the same (seed $seed)" guest_says 'ok soak$'
	check_soak
}

end_soak_cycles() {
	soak cycles "$cycles"
	check "the load goes on, and both sides count the same" guest_says 'ok soak$'
	check_soak
}

# soak ARG...: of end_soak.sh.
soak() {
	local program
	local programs=()
	truncate -s 512M "$devices/swap"
	start_devices "blk,name=disk,queues=2,protocol=$protocol" "scsi,name=host,units=2,queues=2,protocol=$protocol" \
		"net,name=nic,protocol=$protocol,mac=02:00:00:00:00:11" "blk,name=swap,protocol=$protocol" \
		"net,name=other_nic,protocol=$protocol,mac=02:00:00:00:00:12" "blk,name=plugged,protocol=$protocol,interrupts=intx"
	unset "boot_options[-1]" "boot_options[-1]"
	echo "$devices/plugged.vfio" >"$devices/plugged_socket"
	for program in at_once owner reset_unit; do
		programs+=(--copy "$top/build/selftests/$program:/selftests/$suite/")
	done
	run_in_guest end_soak.sh "$@" -- --cpus 2 --mem 768 --qmp --copy "$("$top/tools/vm/bundle" fio ip mkfs.ext4):/" \
		--copy "$top/build/bin/frames:/bin/" --copy "$devices/plugged_socket:/selftests/$suite/" "${programs[@]}"
}

check_soak() {
	check "the kernel has not complained" status_is 0
	check "no driver has broken a rule" no_breach
	# Whoever has failed has left it mounted.
	! guest_says 'ok soak$' || check "the file system is whole" is_whole "$devices/disk"
}
