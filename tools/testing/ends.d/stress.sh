# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # shared with tools/testing/ends
#
# Agents, resets, drivers and the module, at once.

end_stress() {
	start_devices "blk,name=stress,protocol=$protocol"
	run_in_guest end_stress.sh "$cycles" -- --cpus 2 --copy "$("$top/tools/vm/bundle" fio):/"
	check "agents and resets under I/O" guest_says 'ok agents_and_resets_under_io$'
	check "drivers and the module come and go" guest_says 'ok agents_while_drivers_and_the_module_come_and_go$'
	check "the kernel has not complained" status_is 0
}
