# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # shared with tools/testing/ends
#
# 32 devices with one owner.

end_owner() {
	local specs
	mapfile -t specs < <(many_devices "$protocol")
	start_devices "${specs[@]}"
	run_in_guest end_owner.sh "$cycles" -- --cpus 2 --mem 1024 --copy "$("$top/tools/vm/bundle" fio):/" \
		--copy "$top/build/bin/frames:/bin/" --copy "$top/build/selftests/owner:/selftests/$suite/" \
		--copy "$top/build/selftests/fuzz_owner:/selftests/$suite/"
	check "they stop together" guest_says 'ok all_stop_together$'
	check "if one does not, the others run" guest_says 'ok all_or_none$'
	check "random calls do no harm" guest_says 'ok random_calls$'
	check "the kernel has not complained" status_is 0
	check "no driver has broken a rule" no_breach
}
