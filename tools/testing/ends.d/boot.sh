# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # what is quoted is the guest's; shared with tools/testing/ends
#
# What all guest tests rely on: tools/vm/boot, and that it tells how a guest has ended.

# boots STATUS BOOT-ARGUMENT...
boots() {
	local expected=$1
	shift
	status=0
	"$top/tools/vm/boot" --log "$devices/console" "$@" >"$devices/output" 2>"$devices/errors" || status=$?
	check "boot ends with status $expected" status_is "$expected"
}

output_is() {
	printf '%s\n' "$@" | cmp -s - "$devices/output"
}

boot_passes_status_arguments_files_and_output() {
	mkdir -p "$devices/folder/sub"
	echo one >"$devices/folder/sub/a file"
	echo two >"$devices/two"
	boots 7 --copy "$devices/folder:/etc/folder" --copy "$devices/two" --copy "$devices/two:opt/" --copy "$devices/two:/opt/three" \
		--cpus 2 -- sh -c 'cat "/etc/folder/sub/a file" /two /opt/two /opt/three; echo "$2"; nproc; cat; exit 7' \
		_ x "it's \"a\"  \$test"
	check "the guest has the files, the arguments and the processors" output_is one two two two "it's \"a\"  \$test" 2
}

boot_loads_stock_modules_with_what_they_need() {
	boots 0 -- sh -c 'modprobe virtio_net && grep -q ^net_failover /proc/modules'
}

boot_reports_a_timeout() {
	boots 124 --timeout 15 -- sleep 1000
}

# What is written to that disk is never all there: one byte a second. Whoever closes it last would wait for that.
boot_reports_a_guest_that_does_not_shut_down() {
	truncate -s 64M "$devices/slow"
	boots 124 --qemu-arg -drive --qemu-arg "file=$devices/slow,format=raw,if=none,id=slow,throttling.bps-write=1" \
		--qemu-arg -device --qemu-arg virtio-blk-pci,drive=slow \
		-- sh -c 'echo 0 >/proc/sys/kernel/hung_task_timeout_secs; modprobe virtio_pci && modprobe virtio_blk && [ -b /dev/vda ] || exit
			exec 3>/dev/vda && dd if=/dev/zero bs=1M count=16 >&3 || exit
			sleep 1000 &'
	check "it says so" grep -q "has not shut down two minutes after its end" "$devices/errors"
}

boot_reports_an_oops() {
	boots 125 -- sh -c 'echo c >/proc/sysrq-trigger'
}

boot_reports_a_warning_in_spite_of_the_status() {
	boots 125 -- sh -c 'echo "WARNING: planted" >/dev/kmsg; exit 0'
}

# The kernel's own, and those of the virtio core.
boot_tells_data_races_apart() {
	local say='echo on >/proc/sys/kernel/printk_devkmsg
	for function; do
		echo ==================
		echo "BUG: KCSAN: data-race in $function / planted"
		echo "write to 0x0 of 4 bytes by task 1 on cpu 0:"
		echo " planted+0x1/0x2 [virtio_device_stop]" | grep "^ $function+"
		echo "Reported by Kernel Concurrency Sanitizer on:"
		echo "Comm: virtio_device_stop"
		echo ==================
	done >/dev/kmsg'
	boots 0 --kernel kcsan --races "$devices/races" -- sh -c "$say" _ some other some
	check "the kernel's own are no failure, and told" [ "$(grep -c '^ *2  data-race in some / planted$' "$devices/errors")" -eq 1 ]
	check "and kept" [ "$(grep -c '^BUG: KCSAN: data-race in .* / planted$' "$devices/races")" -eq 3 ]
	boots 125 --kernel kcsan -- sh -c "$say" _ some virtio_add_status
	check "what may be ours is shown" grep -q '^ *BUG: KCSAN: data-race in virtio_add_status / planted$' "$devices/errors"
	boots 125 --kernel kcsan -- sh -c "$say" _ planted
	check "and what the module takes part in" grep -q '^ * planted+0x1/0x2 \[virtio_device_stop]$' "$devices/errors"
	boots 0 --kernel kcsan -- grep -q 'setup_watchpoints: [1-9]' /sys/kernel/debug/kcsan
}

boot_reports_a_guest_without_a_status() {
	boots 123 -- reboot -f
}

boot_reports_a_module_that_does_not_load() {
	echo nothing >"$devices/broken.ko"
	boots 123 --module "$devices/broken.ko" -- true
}

starts_again_are() {
	[ "$(grep -c 'It is started again' "$devices/errors")" -eq "$1" ]
}

has_another_clock() {
	grep . "$devices/output" | grep -v '^tsc'
}

boot_does_not_rely_on_the_tsc() {
	boots 0 --cpus 2 -- cat /sys/devices/system/clocksource/clocksource0/current_clocksource
	check "the clock is another" has_another_clock
}

boot_starts_a_guest_again_that_the_emulation_has_brought_down() {
	printf '%s\n' '#!/bin/sh' 'mount -t devtmpfs dev /dev' 'echo "Oops: int3: planted" >/dev/kmsg' 'sync; reboot -f' >"$devices/planted"
	chmod 755 "$devices/planted"
	boots 125 --copy "$devices/planted" --append rdinit=/planted -- true
	check "it is started three times, and not for ever" starts_again_are 2
}

boot_refuses_what_makes_no_sense() {
	boots 2 --kernel other -- true
	boots 2 --cpus 0 -- true
	boots 2 --module /no/such.ko -- true
	boots 2 true
	boots 2 --vfio-user /no/such -- true
	boots 2 --serial qmp=/dev/null -- true
	boots 2 --timeout
	boots 2 --
}

# The emulation of a machine that can have one processor only has no memory barriers that other processes see.
boot_emulates_barriers_with_one_processor() {
	boots 0 --qmp -- sh -c '[ "$(nproc)" = 1 ] || exit; dmesg | grep -q "Hypervisor detected: KVM" && exit
		exec 3<>/dev/vds/qmp; echo "{\"execute\":\"query-hotpluggable-cpus\"}" >&3
		read -r -t 60 line <&3 && [ "$(echo "$line" | grep -o vcpus-count | wc -l)" = 2 ]'
}

boot_runs_a_microvm() {
	boots 3 --machine microvm -- sh -c 'exit 3'
}

boot_gives_the_monitor() {
	boots 0 --qmp -- sh -c 'exec 3<>/dev/vds/qmp; echo "{\"execute\":\"query-status\"}" >&3
		while read -r -t 60 line <&3; do case $line in *running*) exit 0 ;; esac; done; exit 1'
}

boot_passes_parameters_to_modules() {
	start_devices blk,name=disk
	boots 0 "${boot_options[@]}" --module "$module device_stop=0" -- \
		sh -c 'modprobe virtio_blk && grep -x disabled /sys/bus/virtio/devices/virtio0/device_stop/reason'
}

boot_leaves_places_for_hot_plug() {
	boots 0 --qmp -- sh -c 'exec 3<>/dev/vds/qmp
		echo "{\"execute\":\"device_add\",\"arguments\":{\"driver\":\"virtio-rng-pci\",\"bus\":\"spare0\",\"id\":\"rng\"}}" >&3
		read -r -t 60 line <&3 && echo "$line" && waited=0
		until [ -e /sys/bus/virtio/devices/virtio0 ]; do [ $waited -lt 1200 ] && waited=$((waited + 1)) && usleep 50000 || exit 1; done'
}

boot_reaches_sockets_with_long_names() {
	local folder
	folder=$devices/$(printf 'x%.0s' {1..120})
	mkdir -p "$folder"
	truncate -s 1M "$folder/disk"
	# A socket's address is short: it is made, and waited for, from inside of the folder.
	pushd "$folder" >/dev/null || return
	"$top/build/bin/vfio-user-virtio" serve --control control --device blk,name=disk,socket=vfio,file=disk 2>"$devices/log" &
	servers+=($!)
	until [ -S vfio ] || ! kill -0 "${servers[-1]}"; do read -rt 0.01 <> <(:); done
	popd >/dev/null || return
	boots 0 --vfio-user "$folder/vfio" --serial "device=$folder/control" -- sh -c '[ -e /sys/bus/virtio/devices/virtio0 ] &&
		exec 3<>/dev/vds/device && echo "{\"v\":1,\"id\":1,\"device\":\"disk\",\"get\":\"connected\"}" >&3 && read -r -t 60 line <&3 &&
		echo $line | grep true'
}

says_that_it_was_told_to_end() {
	grep -q '^boot: told to end' "$devices/errors" && grep -q 'vds: the kernel has started' "$devices/errors"
}

nobody_writes_the_console() {
	[ -z "$(find /proc/[0-9]*/fd -lname "$devices/console" 2>/dev/null)" ]
}

boot_shows_the_console_when_it_is_told_to_end() {
	local boot
	status=0
	"$top/tools/vm/boot" --log "$devices/console" --timeout 7200 -- sh -c 'echo running; sleep 10000' >"$devices/output" \
		2>"$devices/errors" &
	boot=$!
	servers+=("$boot")
	check "the guest runs" wait_until 120 grep -q running "$devices/output"
	kill "$boot"
	check "the guest ends" wait_until 60 nobody_writes_the_console
	unset 'servers[-1]'
	wait "$boot" || status=$?
	check "boot ends with status 143" status_is 143
	check "the end of the console is shown" says_that_it_was_told_to_end
}
