# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=busybox
#
# Shared by the tests of /dev/virtio_device_stop: ./owner, which does what it is told.

OWNER_PROGRAM=owner

# owner DEVICE...: opens a file, and adds the devices. Its process is OWNER.
owner() {
	rm -f /tmp/say /tmp/hear also
	mkfifo /tmp/say /tmp/hear
	"./$OWNER_PROGRAM" "$@" </tmp/say >/tmp/hear 2>/tmp/owner &
	OWNER=$!
	exec 5>/tmp/say 6</tmp/hear
	read -r -t "$PATIENCE" said <&6 && [ "$said" = ready ] || fail "no owner: $(cat /tmp/owner)"
}

# owner_says COMMAND...: sets SAID to the answer.
owner_says() {
	echo "$*" >&5
	read -r -t "$PATIENCE" SAID <&6 || fail "the owner does not answer: $(cat /tmp/owner)"
}

# asks COMMAND ANSWER
asks() {
	owner_says "$1"
	expect "$1" "$SAID" "$2"
}

owner_goes() {
	exec 5>&- 6<&-
	wait "$OWNER"
}
