# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=busybox
#
# Shared by the tests in this folder. They run in a guest with two virtio disks: "stoppable", which offers
# the protocol in the file "protocol" (device_stop or suspend), and "plain", which offers none.

# shellcheck source=tools/testing/selftests/virtio_device_stop/device.sh
. ./device.sh

# shellcheck disable=SC2034 # for device.sh
DEVICE=${DEVICE:-stoppable}
PROTOCOL=$(cat protocol)

# Whether the end of a stop has to wait for its acknowledgement: VIRTIO_F_SUSPEND has no way to call it off.
suspends() {
	[ "$PROTOCOL" = suspend ]
}

# resumes_may_be_late: under VIRTIO_F_SUSPEND, the device is asked by clearing SUSPEND then, too. The specification forbids that, and
# the judge reports it.
resumes_may_be_late() {
	! suspends || echo '"rule":"STATUS-1","seen":"0x0f written over 0x1b clears 0x10"' >$EXPECTED_BREACH
}

device_never_resumes() {
	resumes_may_be_late
	device_set resume=never
}

# How long a device may take, unless a test says otherwise. The module's default is a second: a stop under I/O can take longer in a
# guest under emulation on a busy machine.
USUAL_TIMEOUT_MS=60000

# Loads the module, as the test finds it: installed, or where tools/vm/boot puts modules.
insert_module() {
	insmod /vds/modules/virtio_device_stop.ko 2>/dev/null || modprobe virtio_device_stop
}

# Has the module loaded, with timeouts that a busy machine does not exceed.
load_module() {
	[ -d /sys/module/virtio_device_stop ] || insert_module || return
	for timeout in /sys/bus/virtio/devices/*/device_stop/timeout_ms; do
		[ ! -e "$timeout" ] || echo $USUAL_TIMEOUT_MS >"$timeout"
	done
}

# Sets DISK, VDEV and STOP: the disk $DEVICE, its virtio device, and that one's files.
find_device() {
	driver virtio_blk || ktap_exit_fail_msg "no virtio_blk"
	DISK=$(disk "$DEVICE")
	[ -n "$DISK" ] || ktap_exit_fail_msg "no disk '$DEVICE'"
	find_vdev
}

find_vdev() {
	VDEV=$(readlink -f "/sys/block/$DISK/device")
	VDEV=${VDEV##*/}
	STOP=/sys/bus/virtio/devices/$VDEV/device_stop
}

# find_type NUMBER: sets VDEV and STOP to the device of that virtio device type.
find_type() {
	for vdev in /sys/bus/virtio/devices/*; do
		if [ $(($(cat "$vdev/device"))) -eq "$1" ]; then
			VDEV=${vdev##*/}
			STOP=$vdev/device_stop
			return
		fi
	done
	fail "no device of type $1"
}

# bind_again: unbinds the driver, and binds it anew.
bind_again() {
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/unbind
	echo "$VDEV" >/sys/bus/virtio/drivers/virtio_blk/bind
	find_device
}

# The PCI function of the device.
pci() {
	readlink -f "/sys/bus/virtio/devices/$VDEV/.."
}

state() {
	local state
	read -r state <"$STOP/state"
	echo "$state"
}

state_is() {
	holds "$STOP/state" "$1"
}

# stat NAME
stat() {
	local stat
	read -r stat <"${STOP}_stats/$1"
	echo "$stat"
}

# stat_is NAME VALUE
stat_is() {
	holds "${STOP}_stats/$1" "$2"
}

stop() {
	expect "stop" "$(store "$STOP/state" stop)" ok
	expect "state" "$(state)" stopped
}

# start_reader: a read waits for the disk that has stopped.
start_reader() {
	dd if="/dev/$DISK" of=/dev/null bs=4k count=1 iflag=direct 2>/tmp/dd &
	READER=$!
	wait_until waiting_are 1
}

reader_is_done() {
	wait "$READER" || fail "the waiting read was lost: $(cat /tmp/dd)"
}

resume() {
	expect "resume" "$(store "$STOP/state" resume)" ok
	expect "state" "$(state)" running
}

# marked MARK: an event of our own has come, and with it all those from before.
marked() {
	echo "change 00000000-0000-4000-8000-000000000000 MARK=$1" >"/sys/bus/virtio/devices/$VDEV/uevent"
	grep -q "^mark $1" /tmp/uevents
}

# has_ended PROCESS
has_ended() {
	! kill -0 "$1" 2>/dev/null
}

# What has been told of the device so far, in a line.
events() {
	sed -n 's/^stop //p' /tmp/uevents | xargs
}

events_are() {
	[ "$(events)" = "$1" ]
}

# told EVENTS MARK: this is told, sooner or later, and nothing else before the mark.
told() {
	wait_until events_are "$1"
	wait_until marked "$2"
	expect "events" "$(events)" "$1"
}

# uevents_of COMMAND...: collects the events of the device while COMMAND runs.
uevents_of() {
	: >/tmp/uevents
	# shellcheck disable=SC2016 # the listener's
	uevent sh -c 'case $DEVPATH in
		*/'"$VDEV"') [ -z "$SYNTH_ARG_MARK" ] || echo "mark $SYNTH_ARG_MARK"; [ -z "$DEVICE_STOP" ] || echo "stop $DEVICE_STOP" ;;
		esac' >/tmp/uevents 2>&1 &
	listener=$!
	wait_until marked begin
	"$@"
	kill $listener
}

set_up() {
	load_module || ktap_exit_fail_msg "the module does not load"
	find_device
}

# Brings everything back to where a test begins. Most tests leave it there.
clean_up() {
	device_do behave
	load_module
	is_as_at_first || bring_back
}

is_as_at_first() {
	[ -d "/sys/bus/virtio/devices/$VDEV/block/$DISK" ] && state_is running && holds "$STOP/reason" none &&
		holds "$STOP/timeout_ms" $USUAL_TIMEOUT_MS && holds "$STOP/lease_ms" 60000
}

bring_back() {
	echo 1 >/sys/bus/pci/rescan
	driver virtio_blk
	for unbound in /sys/bus/virtio/devices/*; do
		[ -e "$unbound/driver" ] || echo "${unbound##*/}" >/sys/bus/virtio/drivers/virtio_blk/bind 2>/dev/null
	done
	find_device
	! state_is unavailable || bind_again
	store "$STOP/state" resume >/dev/null
	store "$STOP/timeout_ms" $USUAL_TIMEOUT_MS >/dev/null
	store "$STOP/lease_ms" 60000 >/dev/null
	wait_until state_is running
	# A reason stays until the next stop.
	holds "$STOP/reason" none || { stop && resume; }
}
