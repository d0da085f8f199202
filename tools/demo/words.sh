# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=busybox disable=SC2034 # shared with the scripts in this folder
#
# What the demonstrations say, and in which colours: $1 is plain or colour. failed is 1 once a claim does not hold.

good='' bad='' dim='' normal=''
if [ "$1" = colour ]; then
	good=$(printf '\033[32m') bad=$(printf '\033[31m') dim=$(printf '\033[2m') normal=$(printf '\033[0m')
fi
failed=0

# row WHAT VALUE
row() {
	printf '  %-26s %s\n' "$1" "$2"
}

# claim WHAT COMMAND...: says whether it holds.
claim() {
	what=$1
	shift
	if "$@"; then
		printf '  %s%-4s%s %s\n' "$good" yes "$normal" "$what"
	else
		printf '  %s%-4s%s %s\n' "$bad" NO "$normal" "$what"
		failed=1
	fi
}

part() {
	printf '\n%s%s%s\n' "$dim" "$*" "$normal"
}

# shows COMMAND...: and what it prints.
shows() {
	part "$@"
	"$@" 2>&1 | sed 's/^/  /'
}

equal() {
	[ "$1" = "$2" ]
}
