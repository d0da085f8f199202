# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash
#
# Tests in parts: each part ends with a line "N passed, N failed", and so does the whole.

parts_start=$SECONDS
parts_log=$(mktemp "${TMPDIR:-/tmp}/vds-part.XXXXXX")
trap 'rm -f "$parts_log"' EXIT
passed=0 failed=0

# part NAME COMMAND...: counts what COMMAND's last line says, or a failure if it fails without saying so. Standard error is left to
# people, with what moves on their terminal.
part() {
	local name=$1 status counts=(0 0) took=$((SECONDS - parts_start))
	shift
	printf '\n[%d:%02d] %s\n' $((took / 60)) $((took % 60)) "$name"
	"$@" | tee "$parts_log"
	status=${PIPESTATUS[0]}
	if [[ $(grep -v '^make' "$parts_log" | tail -n 1) =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
		counts=("${BASH_REMATCH[@]:1}")
	fi
	if [ "$status" -ne 0 ] && [ "${counts[1]}" -eq 0 ]; then
		counts[1]=1
	fi
	passed=$((passed + counts[0]))
	failed=$((failed + counts[1]))
}

# totals: the last line. Fails if a part has.
totals() {
	local took=$((SECONDS - parts_start))
	printf '\n[%d:%02d]\n%d passed, %d failed\n' $((took / 60)) $((took % 60)) "$passed" "$failed"
	[ "$failed" -eq 0 ]
}
