# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # shared with tools/testing/ends
#
# Stops under load from several processors, each with a virtqueue of its own.

end_load() {
	start_devices "blk,name=disk,queues=4,protocol=$protocol" "scsi,name=host,queues=4,units=2,protocol=$protocol"
	run_in_guest end_load.sh "$cycles" -- --cpus 4 --mem 768 --copy "$("$top/tools/vm/bundle" fio):/" \
		--copy "$top/build/selftests/at_once:/selftests/$suite/"
	check "nothing is lost, and nothing goes on while stopped" guest_says 'ok load$'
	check "the kernel has not complained" status_is 0
	check "no driver has broken a rule" no_breach
}
