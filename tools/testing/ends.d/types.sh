# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# shellcheck shell=bash disable=SC2154 # shared with tools/testing/ends
#
# Devices of every type that the kernel has a driver for.

# Type, the module that has its driver, and what that one needs to find: keys of a null device. IOMMU: a page size, and the feature to
# map. Memory and PMEM: where it is, beyond what the guest has. 9P and file system: a tag. GPIO: a line, and an answer which way it goes.
# I2C: a mandatory feature. SPI: a chip to select.
null_types=(
	"3 virtio_console queues=2"
	"5 virtio_balloon queues=3"
	"18 virtio_input queues=2"
	"19 vmw_vsock_virtio_transport queues=3,config=0300000000000000"
	"23 virtio-iommu queues=2,features=0x4,config=0010000000000000"
	"24 virtio_mem queues=1,config=00002000000000000000000000000000000000004000000000000008000000000000000800000000"
	"26 virtiofs queues=2,config=$(printf 'vds%066d' 0 | sed 's/vds/766473/')01000000"
	"27 virtio_pmem queues=1,config=00000000500000000000000100000000"
)
# Those for which only the debug kernel has drivers.
debug_null_types=(
	"9 9pnet_virtio queues=1,features=0x1,config=0300766473"
	"16 virtio-gpu queues=2"
	"20 virtio_crypto queues=2"
	"25 virtio_snd queues=4"
	"34 i2c-virtio queues=1,features=0x1"
	"36 virtio_can queues=3"
	"40 virtio_bt queues=2"
	"41 gpio-virtio queues=1,config=0100000000000000,answers=0x1"
	"45 spi-virtio queues=1,config=01"
)

# verdict TYPE: what the documentation says of it: yes, force or never.
verdict() {
	awk -F '  +' -v type="$1" -v column="$([ "$protocol" = suspend ] && echo 4 || echo 3)" '$1 == type { print $column; exit }' \
		"$top/src/Documentation/driver-api/virtio-device-stop.rst"
}

end_types() {
	local line type driver keys specs=() arguments=() types=("${null_types[@]}")
	[ "$kernel" != debug ] || types+=("${debug_null_types[@]}")
	for line in "${types[@]}"; do
		read -r type driver keys <<<"$line"
		specs+=("null,id=$type,$keys,protocol=$protocol,name=type$type")
		arguments+=("$type:$driver:$(verdict "$type")")
	done
	start_devices "${specs[@]}"
	run_in_guest end_types.sh "${arguments[@]}" -- --mem 1024
	for line in "${types[@]}"; do
		check "type ${line%% *}, with its driver, is stopped or refused as documented" guest_says "ok type_${line%% *}\$"
	done
	check "the kernel has not complained" status_is 0
	check "no driver has broken a rule" no_breach
}
