# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=busybox
#
# For the tests of virtio-stop, the command line.

# shellcheck disable=SC2034 # for the tests
MOUNT=/tmp/mount

# tool STATUS ARG...: what it prints is in /tmp/out, what has failed in /tmp/err.
tool() {
	local status=0
	wanted=$1
	shift
	virtio-stop "$@" </dev/null >/tmp/out 2>/tmp/err || status=$?
	[ $status -eq "$wanted" ] || fail "'virtio-stop $*' ends with $status, not $wanted: $(cat /tmp/out /tmp/err)"
}

# tool_starts ARG...: likewise, in the background. It is TOOL.
tool_starts() {
	rm -f /tmp/out
	virtio-stop "$@" </dev/null >/tmp/out 2>/tmp/err &
	TOOL=$!
}

# tool_ends STATUS
tool_ends() {
	local status=0
	wait "$TOOL" || status=$?
	[ $status -eq "$1" ] || fail "it ends with $status, not $1: $(cat /tmp/out /tmp/err)"
}

out_has() {
	grep -qF -- "$1" /tmp/out || fail "nothing of '$1' in: $(cat /tmp/out)"
}

err_has() {
	grep -qF -- "$1" /tmp/err || fail "nothing of '$1' in: $(cat /tmp/err)"
}

is_empty() {
	[ ! -s "$1" ] || fail "$1 has: $(cat "$1")"
}
