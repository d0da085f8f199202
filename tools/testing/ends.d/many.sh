# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # shared with tools/testing/ends
#
# 32 devices at once.

end_many() {
	local specs
	mapfile -t specs < <(many_devices "$protocol")
	start_devices "${specs[@]}" "blk,name=plugged,protocol=$protocol,interrupts=intx"
	unset "boot_options[-1]" "boot_options[-1]"
	echo "$devices/plugged.vfio" >"$devices/plugged_socket"
	run_in_guest end_many.sh "$cycles" -- --cpus 2 --mem 1024 --qmp --copy "$("$top/tools/vm/bundle" fio):/" --copy "$top/build/bin/frames:/bin/" \
		--copy "$devices/plugged_socket:/selftests/$suite/" --copy "$top/build/selftests/at_once:/selftests/$suite/"
	check "many are stopped and resumed at once" guest_says 'ok many_at_once$'
	check "the kernel has not complained" status_is 0
	check "no driver has broken a rule" no_breach
}
