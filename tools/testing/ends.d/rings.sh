# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # shared with tools/testing/ends
#
# Devices with packed virtqueues, and notifications that carry data.

end_rings() {
	start_devices "blk,name=packed,queues=2,packed=true,notification_data=true,protocol=$protocol" \
		"net,name=nic,packed=true,notification_data=true,protocol=$protocol"
	run_in_guest end_rings.sh "$cycles" -- --cpus 2 --copy "$("$top/tools/vm/bundle" fio):/" --copy "$top/build/bin/frames:/bin/"
	check "a disk loses nothing" guest_says 'ok packed_disk$'
	check "a network card loses nothing" guest_says 'ok packed_nic$'
	check "the kernel has not complained" status_is 0
	check "no driver has broken a rule" no_breach
}
