# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # shared with tools/testing/ends
#
# Disks that are not negotiated with in place.

end_unfit() {
	local disk
	start_devices "blk,name=polled,queues=2,protocol=$protocol" "blk,name=zoned,zoned=true,protocol=$protocol"
	run_in_guest end_unfit.sh -- --cpus 2 --copy "$("$top/tools/vm/bundle" fio):/"
	for disk in polled zoned; do
		check "a $disk disk is not negotiated with where it is" guest_says "ok ${disk}_disk\$"
	done
	check "the kernel has not complained" status_is 0
	check "no driver has broken a rule" no_breach
}
